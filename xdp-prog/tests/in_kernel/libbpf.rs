//! A second, independent loader takes the same object: nothing in it is peculiar to aya.

use libbpf_rs::{MapCore, MapType, ObjectBuilder, ProgramType};
use volley_steer::abi::{Counters, Rules, maps, programs};
use volley_steer::blast::{Answers, Blast};

use crate::program::objects;

#[test]
fn libbpf_loads_every_program_and_map() {
    for (name, bytes) in objects() {
        let object = ObjectBuilder::default()
            .name("volley")
            .and_then(|builder| builder.open_memory(bytes))
            .and_then(libbpf_rs::OpenObject::load)
            .unwrap_or_else(|error| panic!("libbpf refuses the {name} object: {error}"));
        let mut loaded: Vec<String> = object
            .progs()
            .map(|program| {
                assert_eq!(program.prog_type(), ProgramType::Xdp);
                program.name().to_string_lossy().into_owned()
            })
            .collect();
        loaded.sort();
        let mut expected = [
            programs::STEER,
            programs::STEER_GUARDED,
            programs::BLAST,
            programs::COUNT,
            programs::PORT_FILTER,
        ];
        expected.sort_unstable();
        assert_eq!(loaded, expected, "{name} object");

        for (map, kind, value_size) in [
            (maps::RULES, MapType::Array, size_of::<Rules>()),
            (maps::SOCKETS, MapType::Xskmap, 4),
            (maps::COUNTERS, MapType::PercpuArray, size_of::<Counters>()),
            (maps::BUCKETS, MapType::PercpuArray, 8),
            (maps::BLASTS, MapType::PercpuArray, size_of::<Blast>()),
            (maps::EXPECT, MapType::Array, 8),
            (maps::ANSWERS, MapType::PercpuArray, size_of::<Answers>()),
        ] {
            let found = object.maps().find(|found| found.name() == map);
            let found = found.unwrap_or_else(|| panic!("the {name} object has a map {map}"));
            assert_eq!((found.map_type(), found.value_size() as usize), (kind, value_size), "{map}");
        }
    }
}
