//! Which worker serves which queues on which core.

use super::config::Config;
use super::error::StartError;

/// One worker's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The queues it serves; empty over kernel sockets.
    pub queues: Vec<u16>,
    /// The core it is pinned to.
    pub core: Option<usize>,
}

/// Distributes queues and cores over workers.
///
/// `available` is how many receive queues the interface has (`None` over kernel sockets), `allowed` the cores this
/// process may run on. Queues are dealt in rounds, so that neighbours, which RSS fills alike, go to different workers.
///
/// # Errors
/// When more workers are asked for than there are queues, a queue does not exist, or a core may not be used.
pub fn shares(
    config: &Config,
    available: Option<u32>,
    allowed: &[usize],
) -> Result<Vec<Share>, StartError> {
    let queues: Vec<u16> = match (available, &config.queues) {
        (None, _) => Vec::new(),
        (Some(available), None) => (0..available.min(u32::from(u16::MAX)) as u16).collect(),
        (Some(available), Some(named)) => {
            if let Some(&queue) = named.0.iter().find(|queue| u32::from(**queue) >= available) {
                return Err(StartError::NoQueue { queue, available });
            }
            named.0.clone()
        }
    };
    let most = if available.is_some() { queues.len() } else { usize::from(u16::MAX) };
    if most == 0 {
        return Err(StartError::NoQueues);
    }
    let cores: Vec<usize> = match config.cores.0.is_empty() {
        false => config.cores.0.iter().map(|core| usize::from(*core)).collect(),
        // From the top: core 0 is where interrupts and everybody else go when nobody said otherwise.
        true => allowed.iter().rev().copied().collect(),
    };
    if let Some(&core) = cores.iter().find(|core| !allowed.contains(core)) {
        return Err(StartError::NoCore { core, allowed: format!("{allowed:?}") });
    }
    let workers = match config.workers.map(usize::from) {
        Some(0) => return Err(StartError::NoWorkers),
        Some(workers) if workers > most => {
            return Err(StartError::TooManyWorkers { workers, queues: most });
        }
        Some(workers) => workers,
        None if available.is_none() => config.cores.0.len().max(1),
        None => most.min(cores.len()),
    };
    if config.pin && workers > cores.len() {
        log::warn!("{workers} workers on {} cores: some share a core", cores.len());
    }
    let share = |worker: usize| Share {
        queues: queues.iter().copied().skip(worker).step_by(workers).collect(),
        core: config.pin.then(|| cores[worker % cores.len()]),
    };
    Ok((0..workers).map(share).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::config::Numbers;

    fn config(change: impl FnOnce(&mut Config)) -> Config {
        let mut config = Config::default();
        change(&mut config);
        config
    }

    #[test]
    fn queues_are_dealt_in_rounds() {
        let config = config(|c| c.workers = Some(2));
        let shares = shares(&config, Some(5), &[0, 1, 2, 3]).unwrap();
        assert_eq!(shares[0], Share { queues: vec![0, 2, 4], core: Some(3) });
        assert_eq!(shares[1], Share { queues: vec![1, 3], core: Some(2) });
    }

    #[test]
    fn by_default_one_worker_for_each_queue_but_no_more_than_cores() {
        assert_eq!(shares(&Config::default(), Some(1), &[0, 1]).unwrap().len(), 1);
        assert_eq!(shares(&Config::default(), Some(8), &[0, 1]).unwrap().len(), 2);
        assert_eq!(shares(&Config::default(), None, &[0, 1]).unwrap().len(), 1);
    }

    #[test]
    fn named_cores_and_queues_are_kept_in_order() {
        let config = config(|c| {
            c.queues = Some(Numbers(vec![2, 0]));
            c.cores = Numbers(vec![1, 0]);
        });
        let shares = shares(&config, Some(4), &[0, 1]).unwrap();
        assert_eq!(shares[0], Share { queues: vec![2], core: Some(1) });
        assert_eq!(shares[1], Share { queues: vec![0], core: Some(0) });
    }

    #[test]
    fn what_is_not_there_is_refused() {
        let refused = |change: fn(&mut Config), queues| {
            shares(&config(change), queues, &[0, 1]).unwrap_err().to_string()
        };
        assert!(refused(|c| c.queues = Some(Numbers(vec![0, 4])), Some(2)).contains("queue 4"));
        assert!(refused(|c| c.cores = Numbers(vec![7]), Some(2)).contains("core 7"));
        assert!(refused(|c| c.workers = Some(3), Some(2)).contains("3 workers"));
        assert!(refused(|c| c.workers = Some(0), Some(2)).contains("worker"));
        assert!(refused(|c| c.queues = Some(Numbers(vec![])), Some(2)).contains("queue"));
    }
}
