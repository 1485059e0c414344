/* What Rust calls of DPDK's inline functions and of its larger structs, in shapes that stay the same from one LTS to the next.
 *
 * Functions that can fail return 0 or a negative errno, as DPDK's own do; volley_errno() is rte_errno.
 */
#ifndef VOLLEY_SHIM_H
#define VOLLEY_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

/* An mbuf's fields, by offset. The widths are asserted in burst.c. */
enum {
	VOLLEY_MBUF_SIZE = sizeof(struct rte_mbuf),
	VOLLEY_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	VOLLEY_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	VOLLEY_MBUF_REFCNT = offsetof(struct rte_mbuf, refcnt),
	VOLLEY_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	VOLLEY_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	VOLLEY_MBUF_PACKET_TYPE = offsetof(struct rte_mbuf, packet_type),
	VOLLEY_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	VOLLEY_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	VOLLEY_MBUF_VLAN_TCI = offsetof(struct rte_mbuf, vlan_tci),
	VOLLEY_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	VOLLEY_MBUF_POOL = offsetof(struct rte_mbuf, pool),
	VOLLEY_MBUF_NEXT = offsetof(struct rte_mbuf, next),
	VOLLEY_MBUF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload),
	VOLLEY_MBUF_HEADROOM = RTE_PKTMBUF_HEADROOM,
	VOLLEY_MEMPOOL_CACHE_MAX = RTE_MEMPOOL_CACHE_MAX_SIZE,
	/* Widths within tx_offload. */
	VOLLEY_L2_LEN_BITS = RTE_MBUF_L2_LEN_BITS,
	VOLLEY_L3_LEN_BITS = RTE_MBUF_L3_LEN_BITS,
	VOLLEY_PTYPE_L3_MASK = RTE_PTYPE_L3_MASK,
	VOLLEY_PTYPE_L3_IPV6 = RTE_PTYPE_L3_IPV6,
	VOLLEY_PTYPE_L3_IPV6_EXT = RTE_PTYPE_L3_IPV6_EXT,
	VOLLEY_PTYPE_L3_IPV6_EXT_UNKNOWN = RTE_PTYPE_L3_IPV6_EXT_UNKNOWN,
};

static const uint64_t VOLLEY_F_RX_VLAN_STRIPPED = RTE_MBUF_F_RX_VLAN_STRIPPED;
static const uint64_t VOLLEY_F_RX_IP_MASK = RTE_MBUF_F_RX_IP_CKSUM_MASK;
static const uint64_t VOLLEY_F_RX_IP_GOOD = RTE_MBUF_F_RX_IP_CKSUM_GOOD;
static const uint64_t VOLLEY_F_RX_L4_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t VOLLEY_F_RX_L4_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t VOLLEY_F_RX_L4_NONE = RTE_MBUF_F_RX_L4_CKSUM_NONE;
static const uint64_t VOLLEY_F_ELSEWHERE = RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_INDIRECT;
static const uint64_t VOLLEY_F_TX_VLAN = RTE_MBUF_F_TX_VLAN;
static const uint64_t VOLLEY_F_TX_UDP = RTE_MBUF_F_TX_UDP_CKSUM;
static const uint64_t VOLLEY_F_TX_TCP = RTE_MBUF_F_TX_TCP_CKSUM;
static const uint64_t VOLLEY_F_TX_IP = RTE_MBUF_F_TX_IP_CKSUM;
static const uint64_t VOLLEY_F_TX_IPV4 = RTE_MBUF_F_TX_IPV4;
static const uint64_t VOLLEY_F_TX_IPV6 = RTE_MBUF_F_TX_IPV6;

/* Offloads, in bits of our own. */
enum {
	VOLLEY_RX_VLAN_STRIP = 1 << 0,
	VOLLEY_RX_IPV4_CHECKSUM = 1 << 1,
	VOLLEY_RX_UDP_CHECKSUM = 1 << 2,
	VOLLEY_RX_TCP_CHECKSUM = 1 << 3,
	VOLLEY_RX_SCATTER = 1 << 4,
	VOLLEY_RX_TIMESTAMP = 1 << 5,
	VOLLEY_RX_RSS_HASH = 1 << 6,
	VOLLEY_TX_VLAN_INSERT = 1 << 16,
	VOLLEY_TX_IPV4_CHECKSUM = 1 << 17,
	VOLLEY_TX_UDP_CHECKSUM = 1 << 18,
	VOLLEY_TX_TCP_CHECKSUM = 1 << 19,
	VOLLEY_TX_MULTI_SEGMENT = 1 << 20,
	VOLLEY_TX_FAST_FREE = 1 << 21,
};

/* RSS hash functions over fields, in bits of our own. */
enum {
	VOLLEY_RSS_IPV4 = 1 << 0,
	VOLLEY_RSS_IPV6 = 1 << 1,
	VOLLEY_RSS_IPV4_UDP = 1 << 2,
	VOLLEY_RSS_IPV6_UDP = 1 << 3,
	VOLLEY_RSS_IPV4_TCP = 1 << 4,
	VOLLEY_RSS_IPV6_TCP = 1 << 5,
	VOLLEY_RSS_IPV4_FRAGMENT = 1 << 6,
	VOLLEY_RSS_IPV6_FRAGMENT = 1 << 7,
	VOLLEY_RSS_L3_ONLY = 1 << 8,
};

/* What a device is and offers. */
struct volley_device {
	char driver[64];
	char name[64];
	uint8_t mac[6];
	uint16_t mtu;
	uint16_t min_mtu;
	uint16_t max_mtu;
	uint32_t max_frame;
	int32_t socket;
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint16_t min_rx_descriptors;
	uint16_t max_rx_descriptors;
	uint16_t rx_descriptors;
	uint16_t min_tx_descriptors;
	uint16_t max_tx_descriptors;
	uint16_t tx_descriptors;
	uint16_t max_tx_segments;
	uint32_t offloads;
	uint32_t rss;
	uint16_t reta_size;
	uint8_t rss_key_size;
};

/* How a device is set up. */
struct volley_setup {
	uint16_t rx_queues;
	uint16_t tx_queues;
	uint16_t mtu; /* 0: as it is */
	uint32_t offloads;
	uint32_t rss; /* 0: no RSS */
	const uint8_t *rss_key; /* NULL: the driver's */
	uint8_t rss_key_len;
};

struct volley_link {
	uint32_t mbps; /* UINT32_MAX: unknown */
	uint8_t up;
	uint8_t full_duplex;
};

struct volley_stats {
	uint64_t rx_packets;
	uint64_t tx_packets;
	uint64_t rx_missed;
	uint64_t rx_errors;
	uint64_t rx_no_mbuf;
	uint64_t tx_errors;
};

struct volley_xstat {
	char name[64];
	uint64_t value;
};

/* A rule that sends UDP or TCP for one destination port to queues of the device. */
struct volley_flow {
	uint8_t protocol; /* 17 or 6 */
	uint8_t ipv6;
	uint8_t any_address;
	uint8_t name_protocol; /* also in the IPv4 header, where some drivers want to see it and others do not */
	uint8_t address[16]; /* IPv4: the first four */
	uint16_t port; /* host order */
	const uint16_t *queues;
	uint16_t queue_count;
	uint32_t rss; /* over several queues: the hash functions, */
	const uint8_t *rss_key; /* and their key; none: the driver's */
	uint32_t rss_key_len;
};

int volley_errno(void);
const char *volley_version(void);

/* burst.c */
uint16_t volley_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t volley_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t volley_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
int volley_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint32_t count);
/* All from `pool`, single segments, referred to once, fields as the pool expects them. */
void volley_put_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint32_t count);
/* Whatever it is, with all its segments. */
void volley_free_chain(struct rte_mbuf *mbuf);

/* device.c */
struct rte_mempool *volley_pool_create(const char *name, uint32_t count, uint32_t cache, uint16_t room, int socket);
/* Writes each mbuf's number into its private area (see volley_mbuf_index). */
uint32_t volley_mbuf_index(const struct rte_mbuf *mbuf);
int volley_device_get(uint16_t port, struct volley_device *device);
int volley_device_configure(uint16_t port, const struct volley_setup *setup);
int volley_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int socket, struct rte_mempool *pool);
int volley_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int socket);
int volley_link_get(uint16_t port, struct volley_link *link);
int volley_stats_get(uint16_t port, struct volley_stats *stats);
/* Returns how many there are; fills at most `room`. */
int volley_xstats_get(uint16_t port, struct volley_xstat *xstats, uint32_t room);
/* Calls back with `port` when the device is gone; from one of EAL's own threads. */
int volley_on_removal(uint16_t port, void (*callback)(uint16_t port));
/* Registers the mbuf field and flag of receive timestamps. */
int volley_timestamp_register(int *offset, uint64_t *flag);
int volley_read_clock(uint16_t port, uint64_t *clock);

/* flow.c */
struct rte_flow *volley_flow_create(uint16_t port, const struct volley_flow *rule, char *message, size_t room);
int volley_flow_destroy(uint16_t port, struct rte_flow *flow);

/* rss.c */
int volley_reta_set(uint16_t port, const uint16_t *queues, uint16_t size);
int volley_symmetric_toeplitz(uint16_t port);
uint64_t volley_rss_native(uint32_t rss);

/* log.c */
/* rte_eal_init with standard output and error going to the sink of volley_log_to: told something wrong, EAL prints there
 * rather than log. */
int volley_eal_init(int argc, char **argv);
int volley_log_to(void (*line)(uint32_t level, const char *text, size_t len));

#endif
