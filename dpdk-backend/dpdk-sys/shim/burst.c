/* The hot half: one call for a burst. */
#include "shim.h"

#define WIDTH(field, bytes) _Static_assert(sizeof(((struct rte_mbuf *)0)->field) == (bytes), "width of " #field)
WIDTH(buf_addr, 8);
WIDTH(data_off, 2);
WIDTH(refcnt, 2);
WIDTH(nb_segs, 2);
WIDTH(ol_flags, 8);
WIDTH(packet_type, 4);
WIDTH(pkt_len, 4);
WIDTH(data_len, 2);
WIDTH(vlan_tci, 2);
WIDTH(buf_len, 2);
WIDTH(pool, 8);
WIDTH(next, 8);
WIDTH(tx_offload, 8);
/* The Rust side writes these four as one word: what a driver calls the rearm data. */
_Static_assert(offsetof(struct rte_mbuf, refcnt) == offsetof(struct rte_mbuf, data_off) + 2, "refcnt after data_off");
_Static_assert(offsetof(struct rte_mbuf, nb_segs) == offsetof(struct rte_mbuf, data_off) + 4, "nb_segs after refcnt");
_Static_assert(offsetof(struct rte_mbuf, port) == offsetof(struct rte_mbuf, data_off) + 6, "port after nb_segs");

int volley_errno(void)
{
	return rte_errno;
}

const char *volley_version(void)
{
	return rte_version();
}

uint16_t volley_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t volley_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

uint16_t volley_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_prepare(port, queue, mbufs, count);
}

int volley_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint32_t count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void volley_put_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, uint32_t count)
{
	rte_mempool_put_bulk(pool, (void **)mbufs, count);
}

void volley_free_chain(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}
