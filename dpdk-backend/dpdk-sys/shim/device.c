/* Pools, and devices from probe to close. */
#include "shim.h"

#include <stdio.h>
#include <string.h>

#include <rte_mbuf_dyn.h>

struct pair {
	uint32_t ours;
	uint64_t theirs;
};

static const struct pair offloads[] = {
	{ VOLLEY_RX_VLAN_STRIP, RTE_ETH_RX_OFFLOAD_VLAN_STRIP },
	{ VOLLEY_RX_IPV4_CHECKSUM, RTE_ETH_RX_OFFLOAD_IPV4_CKSUM },
	{ VOLLEY_RX_UDP_CHECKSUM, RTE_ETH_RX_OFFLOAD_UDP_CKSUM },
	{ VOLLEY_RX_TCP_CHECKSUM, RTE_ETH_RX_OFFLOAD_TCP_CKSUM },
	{ VOLLEY_RX_SCATTER, RTE_ETH_RX_OFFLOAD_SCATTER },
	{ VOLLEY_RX_TIMESTAMP, RTE_ETH_RX_OFFLOAD_TIMESTAMP },
	{ VOLLEY_RX_RSS_HASH, RTE_ETH_RX_OFFLOAD_RSS_HASH },
	{ VOLLEY_TX_VLAN_INSERT, RTE_ETH_TX_OFFLOAD_VLAN_INSERT },
	{ VOLLEY_TX_IPV4_CHECKSUM, RTE_ETH_TX_OFFLOAD_IPV4_CKSUM },
	{ VOLLEY_TX_UDP_CHECKSUM, RTE_ETH_TX_OFFLOAD_UDP_CKSUM },
	{ VOLLEY_TX_TCP_CHECKSUM, RTE_ETH_TX_OFFLOAD_TCP_CKSUM },
	{ VOLLEY_TX_MULTI_SEGMENT, RTE_ETH_TX_OFFLOAD_MULTI_SEGS },
	{ VOLLEY_TX_FAST_FREE, RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE },
};

#define FIRST_TX VOLLEY_TX_VLAN_INSERT

static const struct pair hashes[] = {
	{ VOLLEY_RSS_IPV4, RTE_ETH_RSS_IPV4 | RTE_ETH_RSS_NONFRAG_IPV4_OTHER },
	{ VOLLEY_RSS_IPV6, RTE_ETH_RSS_IPV6 | RTE_ETH_RSS_NONFRAG_IPV6_OTHER | RTE_ETH_RSS_IPV6_EX },
	{ VOLLEY_RSS_IPV4_UDP, RTE_ETH_RSS_NONFRAG_IPV4_UDP },
	{ VOLLEY_RSS_IPV6_UDP, RTE_ETH_RSS_NONFRAG_IPV6_UDP | RTE_ETH_RSS_IPV6_UDP_EX },
	{ VOLLEY_RSS_IPV4_TCP, RTE_ETH_RSS_NONFRAG_IPV4_TCP },
	{ VOLLEY_RSS_IPV6_TCP, RTE_ETH_RSS_NONFRAG_IPV6_TCP | RTE_ETH_RSS_IPV6_TCP_EX },
	{ VOLLEY_RSS_IPV4_FRAGMENT, RTE_ETH_RSS_FRAG_IPV4 },
	{ VOLLEY_RSS_IPV6_FRAGMENT, RTE_ETH_RSS_FRAG_IPV6 },
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static uint32_t to_ours(const struct pair *pairs, size_t count, uint32_t from, uint32_t before, uint64_t theirs)
{
	uint32_t ours = 0;
	for (size_t i = 0; i < count; i++)
		if (pairs[i].ours >= from && pairs[i].ours < before && (theirs & pairs[i].theirs) != 0)
			ours |= pairs[i].ours;
	return ours;
}

static uint64_t to_theirs(const struct pair *pairs, size_t count, uint32_t from, uint32_t before, uint32_t ours)
{
	uint64_t theirs = 0;
	for (size_t i = 0; i < count; i++)
		if (pairs[i].ours >= from && pairs[i].ours < before && (ours & pairs[i].ours) != 0)
			theirs |= pairs[i].theirs;
	return theirs;
}

uint64_t volley_rss_native(uint32_t rss)
{
	uint64_t native = to_theirs(hashes, COUNT(hashes), 0, VOLLEY_RSS_L3_ONLY, rss);
	/* With nothing said, a device hashes ports too where it knows the protocol: say "addresses". */
	if ((rss & VOLLEY_RSS_L3_ONLY) != 0)
		native |= RTE_ETH_RSS_L3_SRC_ONLY;
	return native;
}

struct numbered {
	uint32_t index;
	uint32_t reserved;
};

static void number(struct rte_mempool *pool, void *arg, void *object, unsigned index)
{
	(void)pool;
	(void)arg;
	struct numbered *mine = rte_mbuf_to_priv(object);
	mine->index = index;
}

struct rte_mempool *volley_pool_create(const char *name, uint32_t count, uint32_t cache, uint16_t room, int socket)
{
	/* A whole cache line, so that the buffer begins with one, and a packet of 64 bytes behind the headroom lies in one. */
	struct rte_mempool *pool =
		rte_pktmbuf_pool_create(name, count, cache, RTE_ALIGN(sizeof(struct numbered), RTE_CACHE_LINE_SIZE), room, socket);
	if (pool != NULL)
		rte_mempool_obj_iter(pool, number, NULL);
	return pool;
}

uint32_t volley_mbuf_index(const struct rte_mbuf *mbuf)
{
	const struct numbered *mine = (const void *)(mbuf + 1);
	return mine->index;
}

int volley_device_get(uint16_t port, struct volley_device *device)
{
	struct rte_eth_dev_info info;
	struct rte_ether_addr mac;
	int failed = rte_eth_dev_info_get(port, &info);
	if (failed != 0)
		return failed;
	memset(device, 0, sizeof(*device));
	snprintf(device->driver, sizeof(device->driver), "%s", info.driver_name != NULL ? info.driver_name : "");
	rte_eth_dev_get_name_by_port(port, device->name);
	if (rte_eth_macaddr_get(port, &mac) == 0)
		memcpy(device->mac, mac.addr_bytes, sizeof(device->mac));
	rte_eth_dev_get_mtu(port, &device->mtu);
	device->min_mtu = info.min_mtu;
	device->max_mtu = info.max_mtu;
	device->max_frame = info.max_rx_pktlen;
	device->socket = rte_eth_dev_socket_id(port);
	device->max_rx_queues = info.max_rx_queues;
	device->max_tx_queues = info.max_tx_queues;
	device->min_rx_descriptors = info.rx_desc_lim.nb_min;
	device->max_rx_descriptors = info.rx_desc_lim.nb_max;
	device->rx_descriptors = info.default_rxportconf.ring_size;
	device->min_tx_descriptors = info.tx_desc_lim.nb_min;
	device->max_tx_descriptors = info.tx_desc_lim.nb_max;
	device->tx_descriptors = info.default_txportconf.ring_size;
	device->max_tx_segments = info.tx_desc_lim.nb_mtu_seg_max;
	device->offloads = to_ours(offloads, COUNT(offloads), 0, FIRST_TX, info.rx_offload_capa) |
			   to_ours(offloads, COUNT(offloads), FIRST_TX, UINT32_MAX, info.tx_offload_capa);
	device->rss = to_ours(hashes, COUNT(hashes), 0, VOLLEY_RSS_L3_ONLY, info.flow_type_rss_offloads);
	if ((info.flow_type_rss_offloads & RTE_ETH_RSS_L3_SRC_ONLY) != 0)
		device->rss |= VOLLEY_RSS_L3_ONLY;
	device->reta_size = info.reta_size;
	device->rss_key_size = info.hash_key_size;
	return 0;
}

int volley_device_configure(uint16_t port, const struct volley_setup *setup)
{
	struct rte_eth_dev_info info;
	struct rte_eth_conf conf;
	int failed = rte_eth_dev_info_get(port, &info);
	if (failed != 0)
		return failed;
	memset(&conf, 0, sizeof(conf));
	conf.rxmode.offloads = to_theirs(offloads, COUNT(offloads), 0, FIRST_TX, setup->offloads);
	conf.txmode.offloads = to_theirs(offloads, COUNT(offloads), FIRST_TX, UINT32_MAX, setup->offloads);
	conf.rxmode.mtu = setup->mtu;
	/* The device's removal is reported where the driver can. */
	conf.intr_conf.rmv = (*info.dev_flags & RTE_ETH_DEV_INTR_RMV) != 0;
	if (setup->rss != 0) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = volley_rss_native(setup->rss) & info.flow_type_rss_offloads;
		conf.rx_adv_conf.rss_conf.rss_key = (uint8_t *)(uintptr_t)setup->rss_key;
		conf.rx_adv_conf.rss_conf.rss_key_len = setup->rss_key_len;
	}
	return rte_eth_dev_configure(port, setup->rx_queues, setup->tx_queues, &conf);
}

int volley_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int socket, struct rte_mempool *pool)
{
	struct rte_eth_dev_info info;
	int failed = rte_eth_dev_info_get(port, &info);
	if (failed != 0)
		return failed;
	info.default_rxconf.offloads = 0; /* those of the port hold */
	return rte_eth_rx_queue_setup(port, queue, descriptors, (unsigned)socket, &info.default_rxconf, pool);
}

int volley_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t descriptors, int socket)
{
	struct rte_eth_dev_info info;
	int failed = rte_eth_dev_info_get(port, &info);
	if (failed != 0)
		return failed;
	info.default_txconf.offloads = 0;
	return rte_eth_tx_queue_setup(port, queue, descriptors, (unsigned)socket, &info.default_txconf);
}

int volley_link_get(uint16_t port, struct volley_link *link)
{
	struct rte_eth_link now;
	int failed = rte_eth_link_get_nowait(port, &now);
	if (failed != 0)
		return failed;
	link->mbps = now.link_speed;
	link->up = now.link_status == RTE_ETH_LINK_UP;
	link->full_duplex = now.link_duplex == RTE_ETH_LINK_FULL_DUPLEX;
	return 0;
}

int volley_stats_get(uint16_t port, struct volley_stats *stats)
{
	struct rte_eth_stats now;
	int failed = rte_eth_stats_get(port, &now);
	if (failed != 0)
		return failed;
	*stats = (struct volley_stats){
		.rx_packets = now.ipackets,
		.tx_packets = now.opackets,
		.rx_missed = now.imissed,
		.rx_errors = now.ierrors,
		.rx_no_mbuf = now.rx_nombuf,
		.tx_errors = now.oerrors,
	};
	return 0;
}

int volley_xstats_get(uint16_t port, struct volley_xstat *xstats, uint32_t room)
{
	int there = rte_eth_xstats_get(port, NULL, 0);
	if (there <= 0 || xstats == NULL || room < (uint32_t)there)
		return there;
	struct rte_eth_xstat values[there];
	struct rte_eth_xstat_name names[there];
	if (rte_eth_xstats_get_names(port, names, (unsigned)there) != there ||
	    rte_eth_xstats_get(port, values, (unsigned)there) != there)
		return -EAGAIN;
	for (int i = 0; i < there; i++) {
		snprintf(xstats[i].name, sizeof(xstats[i].name), "%s", names[values[i].id].name);
		xstats[i].value = values[i].value;
	}
	return there;
}

static int removed(uint16_t port, enum rte_eth_event_type type, void *argument, void *ret)
{
	(void)type;
	(void)ret;
	((void (*)(uint16_t))argument)(port);
	return 0;
}

int volley_on_removal(uint16_t port, void (*callback)(uint16_t port))
{
	return rte_eth_dev_callback_register(port, RTE_ETH_EVENT_INTR_RMV, removed, (void *)callback);
}

int volley_timestamp_register(int *offset, uint64_t *flag)
{
	return rte_mbuf_dyn_rx_timestamp_register(offset, flag) == 0 ? 0 : -rte_errno;
}

int volley_read_clock(uint16_t port, uint64_t *clock)
{
	return rte_eth_read_clock(port, clock);
}
