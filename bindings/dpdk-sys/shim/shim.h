/* What bindgen sees: DPDK's headers, the functions of shim.c, and the constants that macros hide from it.
 * Whatever DPDK renames or moves from one version to the next is levelled here, and nowhere else. */
#ifndef DPDK_SYS_SHIM_H
#define DPDK_SYS_SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

#include <rte_version.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <rte_lcore.h>
#include <rte_eal.h>
#include <rte_dev.h>
#include <rte_mempool.h>
#include <rte_mbuf.h>
#include <rte_ethdev.h>

/* Where the fields of an mbuf are. The structure has been regrouped since 22.11, and bindgen would name its parts
 * differently each time; offsets stay what they are. */
enum shim_mbuf_offset {
	SHIM_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	SHIM_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	SHIM_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	SHIM_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	SHIM_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	SHIM_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	SHIM_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	SHIM_MBUF_NEXT = offsetof(struct rte_mbuf, next),
	SHIM_MBUF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload),
	SHIM_MBUF_SEGS_MAX = RTE_MBUF_MAX_NB_SEGS,
	/* Two numbers of 32 bits in one: packet_type, pkt_len. And of 16 bits: data_len, vlan_tci. */
	SHIM_MBUF_PACKET_TYPE = offsetof(struct rte_mbuf, pkt_len) - 4,
	/* Four numbers of 16 bits in one: data_off, refcnt, nb_segs, port. */
	SHIM_MBUF_REARM = offsetof(struct rte_mbuf, data_off),
	SHIM_MBUF_PORT_INVALID = RTE_MBUF_PORT_INVALID,
};

/* Flags of a received frame. */
static const uint64_t SHIM_RX_L4_CKSUM_MASK = RTE_MBUF_F_RX_L4_CKSUM_MASK;
static const uint64_t SHIM_RX_L4_CKSUM_GOOD = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
static const uint64_t SHIM_RX_L4_CKSUM_BAD = RTE_MBUF_F_RX_L4_CKSUM_BAD;
static const uint64_t SHIM_RX_L4_CKSUM_NONE = RTE_MBUF_F_RX_L4_CKSUM_NONE;
/* Flags of a frame to be sent. */
static const uint64_t SHIM_TX_IPV4 = RTE_MBUF_F_TX_IPV4;
static const uint64_t SHIM_TX_IPV6 = RTE_MBUF_F_TX_IPV6;
static const uint64_t SHIM_TX_IP_CKSUM = RTE_MBUF_F_TX_IP_CKSUM;
static const uint64_t SHIM_TX_TCP_CKSUM = RTE_MBUF_F_TX_TCP_CKSUM;
static const uint64_t SHIM_TX_UDP_CKSUM = RTE_MBUF_F_TX_UDP_CKSUM;
static const uint64_t SHIM_TX_TCP_SEG = RTE_MBUF_F_TX_TCP_SEG;
/* What ports can do. */
static const uint64_t SHIM_RX_OFFLOAD_UDP_CKSUM = RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
static const uint64_t SHIM_RX_OFFLOAD_TCP_CKSUM = RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
static const uint64_t SHIM_RX_OFFLOAD_SCATTER = RTE_ETH_RX_OFFLOAD_SCATTER;
static const uint64_t SHIM_TX_OFFLOAD_IPV4_CKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t SHIM_TX_OFFLOAD_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t SHIM_TX_OFFLOAD_TCP_CKSUM = RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
static const uint64_t SHIM_TX_OFFLOAD_TCP_TSO = RTE_ETH_TX_OFFLOAD_TCP_TSO;
static const uint64_t SHIM_TX_OFFLOAD_MULTI_SEGS = RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
static const uint64_t SHIM_RSS_IP = RTE_ETH_RSS_IP;
static const uint64_t SHIM_RSS_TCP = RTE_ETH_RSS_TCP;
static const uint64_t SHIM_RSS_UDP = RTE_ETH_RSS_UDP;
enum shim_any { SHIM_SOCKET_ANY = (unsigned int)SOCKET_ID_ANY };
enum shim_mq_mode { SHIM_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS };

/* Structures that are passed by address, for the tests: what the C compiler makes of them. */
enum shim_layout_of {
	SHIM_LAYOUT_ETH_CONF,
	SHIM_LAYOUT_DEV_INFO,
	SHIM_LAYOUT_STATS,
	SHIM_LAYOUT_XSTAT,
	SHIM_LAYOUT_XSTAT_NAME,
	SHIM_LAYOUT_RETA_ENTRY,
	SHIM_LAYOUT_ETHER_ADDR,
};
struct shim_layout {
	size_t size;
	size_t align;
	/* of the field that is used last */
	size_t offset;
};
struct shim_layout shim_layout(enum shim_layout_of which);

/* Gets one message, without its final newline; level as RTE_LOG_*. */
typedef void (*shim_log_sink)(uint32_t level, const char *text, size_t len);

/* All of EAL's messages go to `sink` from here on. Returns 0, or a negative errno. Once per process. */
int shim_log_to(shim_log_sink sink);
int shim_errno(void);
bool shim_thread_is_registered(void);

/* The first port that a device of this name, or with these devargs, has. Returns 0 or -ENODEV. */
int shim_port_of(const char *devargs, uint16_t *port);

struct shim_link {
	/* Mbit/s; UINT32_MAX if unknown */
	uint32_t speed;
	bool up;
};
int shim_link(uint16_t port, struct shim_link *link);

/* Data path: one call a burst. */
uint16_t shim_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t shim_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
uint16_t shim_tx_prepare(uint16_t port, uint16_t queue, struct rte_mbuf **mbufs, uint16_t count);
/* Mbufs as they lie in the pool: what is constant there is set (one segment, one owner, no next), nothing else is. */
int shim_alloc_raw(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);
void shim_free_bulk(struct rte_mbuf **mbufs, unsigned int count);
void shim_free(struct rte_mbuf *mbuf);

/* Headers of an mbuf whose lengths and flags are set: writes the pseudo-header sum where the hardware wants it. */
int shim_pseudo_header(struct rte_mbuf *mbuf);
/* The bits of rte_mbuf.tx_offload. */
uint64_t shim_tx_offload(uint8_t l2, uint16_t l3, uint8_t l4, uint16_t segment);
/* The ones' complement sum over `len` bytes from `offset` on, folded; -1 if they are not all in the frame. */
int shim_raw_sum(const struct rte_mbuf *mbuf, uint32_t offset, uint32_t len);
/* A check that DPDK makes itself: 0, or -1 and the reason. */
int shim_mbuf_check(const struct rte_mbuf *mbuf, const char **reason);

#endif
