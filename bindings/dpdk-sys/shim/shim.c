/* DPDK's static inline functions and thread-local macros as functions that can be linked to. No policy in here. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_net.h>

#include "shim.h"

#if RTE_VERSION < RTE_VERSION_NUM(22, 11, 0, 0)
#error "DPDK 22.11 or newer is needed: apt-get install libdpdk-dev dpdk-dev"
#endif

#define LAYOUT(type, field) (struct shim_layout){ sizeof(type), _Alignof(type), offsetof(type, field) }

struct shim_layout shim_layout(enum shim_layout_of which)
{
	switch (which) {
	case SHIM_LAYOUT_ETH_CONF:
		return LAYOUT(struct rte_eth_conf, rx_adv_conf.rss_conf.rss_hf);
	case SHIM_LAYOUT_DEV_INFO:
		return LAYOUT(struct rte_eth_dev_info, flow_type_rss_offloads);
	case SHIM_LAYOUT_STATS:
		return LAYOUT(struct rte_eth_stats, rx_nombuf);
	case SHIM_LAYOUT_XSTAT:
		return LAYOUT(struct rte_eth_xstat, value);
	case SHIM_LAYOUT_XSTAT_NAME:
		return LAYOUT(struct rte_eth_xstat_name, name);
	case SHIM_LAYOUT_RETA_ENTRY:
		return LAYOUT(struct rte_eth_rss_reta_entry64, reta);
	case SHIM_LAYOUT_ETHER_ADDR:
		return LAYOUT(struct rte_ether_addr, addr_bytes);
	}
	return (struct shim_layout){ 0, 0, 0 };
}

static shim_log_sink log_sink;

static ssize_t log_write(void *cookie, const char *text, size_t len)
{
	int level = rte_log_cur_msg_loglevel();
	size_t kept = len;

	(void)cookie;
	while (kept > 0 && (text[kept - 1] == '\n' || text[kept - 1] == '\r'))
		kept--;
	/* -1 on threads that are none of EAL's: no level is known */
	if (kept > 0)
		log_sink(level < 0 ? 0 : (uint32_t)level, text, kept);
	return (ssize_t)len;
}

int shim_log_to(shim_log_sink sink)
{
	cookie_io_functions_t functions = { .write = log_write };
	FILE *stream = fopencookie(NULL, "w", functions);

	if (stream == NULL)
		return -errno;
	log_sink = sink;
	/* rte_vlog flushes after each message, so that one write is one message. */
	return rte_openlog_stream(stream);
}

int shim_errno(void)
{
	return rte_errno;
}

bool shim_thread_is_registered(void)
{
	return rte_lcore_id() != LCORE_ID_ANY;
}

int shim_port_of(const char *devargs, uint16_t *port)
{
	char name[RTE_ETH_NAME_MAX_LEN];
	size_t len = strcspn(devargs, ",");
	struct rte_dev_iterator iterator;
	uint16_t found;

	if (len < sizeof(name)) {
		memcpy(name, devargs, len);
		name[len] = '\0';
		if (rte_eth_dev_get_port_by_name(name, port) == 0)
			return 0;
	}
	/* A PCI device need not be named after its address as it was written. */
	if (rte_eth_iterator_init(&iterator, devargs) != 0)
		return -ENODEV;
	found = rte_eth_iterator_next(&iterator);
	if (found == RTE_MAX_ETHPORTS)
		return -ENODEV; /* which has cleaned up */
	rte_eth_iterator_cleanup(&iterator);
	*port = found;
	return 0;
}

int shim_link(uint16_t port, struct shim_link *link)
{
	struct rte_eth_link state;
	int status;

	memset(&state, 0, sizeof(state));
	status = rte_eth_link_get_nowait(port, &state);
	link->speed = state.link_speed;
	link->up = state.link_status == RTE_ETH_LINK_UP;
	return status;
}

uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, mbufs, count);
}

uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

uint16_t shim_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count)
{
	return rte_eth_tx_prepare(port, queue, mbufs, count);
}

_Static_assert(offsetof(struct rte_mbuf, refcnt) == SHIM_MBUF_REARM + 2, "refcnt is in rearm");
_Static_assert(offsetof(struct rte_mbuf, nb_segs) == SHIM_MBUF_REARM + 4, "nb_segs is in rearm");
_Static_assert(offsetof(struct rte_mbuf, packet_type) == SHIM_MBUF_PACKET_TYPE, "packet_type is before pkt_len");
_Static_assert(offsetof(struct rte_mbuf, vlan_tci) == SHIM_MBUF_DATA_LEN + 2, "vlan_tci is behind data_len");
_Static_assert(offsetof(struct rte_mbuf, port) == SHIM_MBUF_REARM + 6, "port is in rearm");

int shim_alloc_raw(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_mempool_get_bulk(pool, (void **)mbufs, count);
}

/* As rte_pktmbuf_free_bulk, and quicker for what nearly all frames are: one segment of the same pool, without other owners. */
void shim_free_bulk(struct rte_mbuf **mbufs, unsigned int count)
{
	struct rte_mempool *pool;
	unsigned int i;

	if (count == 0)
		return;
	pool = mbufs[0]->pool;
	for (i = 0; i < count; i++) {
		const struct rte_mbuf *m = mbufs[i];

		if (m->pool != pool || m->next != NULL || m->nb_segs != 1 || !RTE_MBUF_DIRECT(m) ||
		    rte_mbuf_refcnt_read(m) != 1) {
			rte_pktmbuf_free_bulk(mbufs, count);
			return;
		}
	}
	rte_mempool_put_bulk(pool, (void *const *)mbufs, count);
}

void shim_free(struct rte_mbuf *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

int shim_pseudo_header(struct rte_mbuf *mbuf)
{
	return rte_net_intel_cksum_prepare(mbuf);
}

uint64_t shim_tx_offload(uint8_t l2, uint16_t l3, uint8_t l4, uint16_t segment)
{
	return rte_mbuf_tx_offload(l2, l3, l4, segment, 0, 0, 0);
}

int shim_raw_sum(const struct rte_mbuf *mbuf, uint32_t offset, uint32_t len)
{
	uint16_t sum;

	if (rte_raw_cksum_mbuf(mbuf, offset, len, &sum) != 0)
		return -1;
	return sum;
}

int shim_mbuf_check(const struct rte_mbuf *mbuf, const char **reason)
{
	return rte_mbuf_check(mbuf, 1, reason);
}
