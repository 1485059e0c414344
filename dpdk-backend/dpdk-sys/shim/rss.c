/* Which hash goes to which queue. */
#include "shim.h"

#include <errno.h>
#include <string.h>

int volley_reta_set(uint16_t port, const uint16_t *queues, uint16_t size)
{
	struct rte_eth_rss_reta_entry64 groups[RTE_ETH_RSS_RETA_SIZE_512 / RTE_ETH_RETA_GROUP_SIZE];
	if (size == 0 || size > RTE_ETH_RSS_RETA_SIZE_512)
		return -EINVAL;
	memset(groups, 0, sizeof(groups));
	for (uint16_t i = 0; i < size; i++) {
		struct rte_eth_rss_reta_entry64 *group = &groups[i / RTE_ETH_RETA_GROUP_SIZE];
		group->mask |= RTE_BIT64(i % RTE_ETH_RETA_GROUP_SIZE);
		group->reta[i % RTE_ETH_RETA_GROUP_SIZE] = queues[i];
	}
	return rte_eth_dev_rss_reta_update(port, groups, size);
}

int volley_symmetric_toeplitz(uint16_t port)
{
	/* One rule for everything: the same function, over the sorted pair. Devices without it refuse the rule. */
	struct rte_flow_attr attr = { .ingress = 1 };
	struct rte_flow_item items[2] = { { .type = RTE_FLOW_ITEM_TYPE_ETH }, { .type = RTE_FLOW_ITEM_TYPE_END } };
	struct rte_flow_action_rss rss = { .func = RTE_ETH_HASH_FUNCTION_SYMMETRIC_TOEPLITZ };
	struct rte_flow_action actions[2] = {
		{ .type = RTE_FLOW_ACTION_TYPE_RSS, .conf = &rss },
		{ .type = RTE_FLOW_ACTION_TYPE_END },
	};
	struct rte_flow_error error;
	return rte_flow_create(port, &attr, items, actions, &error) != NULL ? 0 : -rte_errno;
}
