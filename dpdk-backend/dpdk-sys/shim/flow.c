/* Rules in the device. */
#include "shim.h"

#include <stdio.h>
#include <string.h>

struct rte_flow *volley_flow_create(uint16_t port, const struct volley_flow *rule, char *message, size_t room)
{
	struct rte_flow_attr attr = { .ingress = 1 };
	struct rte_flow_item_ipv4 v4, v4_mask;
	struct rte_flow_item_ipv6 v6, v6_mask;
	struct rte_flow_item_udp udp, udp_mask;
	struct rte_flow_item_tcp tcp, tcp_mask;
	memset(&v4, 0, sizeof(v4));
	memset(&v4_mask, 0, sizeof(v4_mask));
	memset(&v6, 0, sizeof(v6));
	memset(&v6_mask, 0, sizeof(v6_mask));
	memset(&udp, 0, sizeof(udp));
	memset(&udp_mask, 0, sizeof(udp_mask));
	memset(&tcp, 0, sizeof(tcp));
	memset(&tcp_mask, 0, sizeof(tcp_mask));

	struct rte_flow_item items[4] = {
		{ .type = RTE_FLOW_ITEM_TYPE_ETH },
		{ .type = rule->ipv6 ? RTE_FLOW_ITEM_TYPE_IPV6 : RTE_FLOW_ITEM_TYPE_IPV4 },
		{ .type = rule->protocol == IPPROTO_TCP ? RTE_FLOW_ITEM_TYPE_TCP : RTE_FLOW_ITEM_TYPE_UDP },
		{ .type = RTE_FLOW_ITEM_TYPE_END },
	};
	if (!rule->any_address && rule->ipv6) {
		memcpy(&v6.hdr.dst_addr, rule->address, 16);
		memset(&v6_mask.hdr.dst_addr, 0xff, 16);
		items[1].spec = &v6;
		items[1].mask = &v6_mask;
	} else if (!rule->any_address) {
		memcpy(&v4.hdr.dst_addr, rule->address, 4);
		v4_mask.hdr.dst_addr = UINT32_MAX;
		items[1].spec = &v4;
		items[1].mask = &v4_mask;
	}
	if (rule->name_protocol && !rule->ipv6) {
		v4.hdr.next_proto_id = rule->protocol;
		v4_mask.hdr.next_proto_id = UINT8_MAX;
		items[1].spec = &v4;
		items[1].mask = &v4_mask;
	}
	if (rule->protocol == IPPROTO_TCP) {
		tcp.hdr.dst_port = rte_cpu_to_be_16(rule->port);
		tcp_mask.hdr.dst_port = UINT16_MAX;
		items[2].spec = &tcp;
		items[2].mask = &tcp_mask;
	} else {
		udp.hdr.dst_port = rte_cpu_to_be_16(rule->port);
		udp_mask.hdr.dst_port = UINT16_MAX;
		items[2].spec = &udp;
		items[2].mask = &udp_mask;
	}

	struct rte_flow_action_queue queue = { .index = rule->queue_count > 0 ? rule->queues[0] : 0 };
	struct rte_flow_action_rss rss = {
		.types = volley_rss_native(rule->rss),
		.queue_num = rule->queue_count,
		.queue = rule->queues,
		.key = rule->rss_key,
		.key_len = rule->rss_key_len,
	};
	struct rte_flow_action actions[2] = { { .type = RTE_FLOW_ACTION_TYPE_END }, { .type = RTE_FLOW_ACTION_TYPE_END } };
	if (rule->queue_count > 1) {
		actions[0].type = RTE_FLOW_ACTION_TYPE_RSS;
		actions[0].conf = &rss;
	} else {
		actions[0].type = RTE_FLOW_ACTION_TYPE_QUEUE;
		actions[0].conf = &queue;
	}

	struct rte_flow_error error;
	memset(&error, 0, sizeof(error));
	struct rte_flow *flow = rte_flow_create(port, &attr, items, actions, &error);
	if (flow == NULL && room > 0)
		snprintf(message, room, "%s", error.message != NULL ? error.message : rte_strerror(rte_errno));
	return flow;
}

int volley_flow_destroy(uint16_t port, struct rte_flow *flow)
{
	struct rte_flow_error error;
	return rte_flow_destroy(port, flow, &error);
}
