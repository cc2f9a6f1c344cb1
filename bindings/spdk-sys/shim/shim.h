/* What bindgen sees: the functions of shim.c, our own structures, and those of SPDK's functions that need no structure of
 * SPDK's. Whatever has a layout there, or differs between versions, is levelled here, and nowhere else. */
#ifndef SPDK_SYS_SHIM_H
#define SPDK_SYS_SHIM_H

#include <spdk/stdinc.h>
#include <spdk/version.h>
#include <spdk/bdev.h>
#include <spdk/env.h>
#include <spdk/env_dpdk.h>
#include <spdk/init.h>
#include <spdk/log.h>
#include <spdk/rpc.h>
#include <spdk/thread.h>

enum spdk_shim_version { SPDK_SHIM_VERSION = SPDK_VERSION };
const char *spdk_shim_version_string(void);

/* Log: gets one message, without its final newline; level as SPDK_LOG_ERROR (0) to SPDK_LOG_DEBUG (4). */
typedef void (*spdk_shim_log_sink)(int level, const char *text, size_t len);
/* All of SPDK's messages up to `level` go to `sink` from here on. Once per process. */
void spdk_shim_log_to(spdk_shim_log_sink sink, int level);

/* Environment. */
struct spdk_shim_env_config {
	const char *name;
	/* EAL's --lcores, or NULL for the first core */
	const char *lcores;
	/* further arguments of EAL, or NULL */
	const char *arguments;
	/* of huge pages, or of ordinary memory; -1 for no bound */
	int mem_mib;
	bool no_pci;
	bool no_huge;
};
/* Starts EAL and SPDK's environment over it. Returns 0, or a negative errno. Once per process. */
int spdk_shim_env_start(const struct spdk_shim_env_config *config);

/* Threads: `created` is called for every thread that is made, on the thread that makes it. Returns 0 to have it. */
typedef int (*spdk_shim_thread_created)(struct spdk_thread *thread);
/* Whether the calling thread is, at the moment, the first SPDK thread of the process. */
bool spdk_shim_on_app_thread(void);
int spdk_shim_threads_start(spdk_shim_thread_created created, size_t messages);

/* Block devices. */
enum spdk_shim_io_type {
	SPDK_SHIM_IO_READ = SPDK_BDEV_IO_TYPE_READ,
	SPDK_SHIM_IO_WRITE = SPDK_BDEV_IO_TYPE_WRITE,
	SPDK_SHIM_IO_UNMAP = SPDK_BDEV_IO_TYPE_UNMAP,
	SPDK_SHIM_IO_FLUSH = SPDK_BDEV_IO_TYPE_FLUSH,
	SPDK_SHIM_IO_RESET = SPDK_BDEV_IO_TYPE_RESET,
	SPDK_SHIM_IO_WRITE_ZEROES = SPDK_BDEV_IO_TYPE_WRITE_ZEROES,
	SPDK_SHIM_IO_COMPARE = SPDK_BDEV_IO_TYPE_COMPARE,
	SPDK_SHIM_IO_COMPARE_AND_WRITE = SPDK_BDEV_IO_TYPE_COMPARE_AND_WRITE,
	SPDK_SHIM_IO_ABORT = SPDK_BDEV_IO_TYPE_ABORT,
	/* READ and WRITE of a device that lends its own memory: a read without a buffer, as SPDK's own comparisons do it, and
	 * spdk_bdev_zcopy_start and _end */
	SPDK_SHIM_IO_LENT_READ = SPDK_BDEV_NUM_IO_TYPES,
	SPDK_SHIM_IO_LENT_WRITE,
};
enum spdk_shim_event {
	SPDK_SHIM_EVENT_REMOVE = SPDK_BDEV_EVENT_REMOVE,
	SPDK_SHIM_EVENT_RESIZE = SPDK_BDEV_EVENT_RESIZE,
};

enum spdk_shim_presence {
	SPDK_SHIM_ABSENT,
	SPDK_SHIM_CLAIMED,
	SPDK_SHIM_FREE,
};
/* What there is of a bdev of that name, or alias. On an SPDK thread; without a word in the log. */
enum spdk_shim_presence spdk_shim_bdev_presence(const char *name);
/* Whether a bdev has been registered, and examined, since the notification `*next` (0 for the first of all), which becomes the
 * one that comes next. From any thread. */
bool spdk_shim_bdevs_registered(uint64_t *next);

struct spdk_shim_bdev_info {
	/* live as long as the descriptor */
	const char *name;
	const char *product;
	uint64_t block_count;
	uint32_t block_size;
	uint32_t physical_block_size;
	/* bytes of metadata with each block; 0 for none */
	uint32_t metadata_size;
	/* blocks; 0 for none */
	uint32_t optimal_boundary;
	/* blocks, at least 1 */
	uint32_t write_unit;
	/* most blocks of a compare-and-write */
	uint32_t compare_write_max;
	/* alignment of buffers in bytes, at least 1 */
	uint32_t alignment;
	bool write_cache;
	bool zoned;
	/* memory is what it is made of, and SPDK_SHIM_IO_LENT_… lends it */
	bool lends;
	/* bit n: the type n of enum spdk_shim_io_type is known to the device */
	uint32_t io_types;
};
void spdk_shim_bdev_info(struct spdk_bdev_desc *desc, struct spdk_shim_bdev_info *info);

/* A summary of what a device has done since it was there. */
struct spdk_shim_bdev_stat {
	uint64_t read_bytes;
	uint64_t reads;
	uint64_t written_bytes;
	uint64_t writes;
	uint64_t unmapped_bytes;
	uint64_t unmaps;
};
/* `done` is called on the calling thread, later; `stat` has to live until then. */
typedef void (*spdk_shim_stat_done)(void *context, int status);
int spdk_shim_bdev_stat(struct spdk_bdev_desc *desc, struct spdk_shim_bdev_stat *stat, spdk_shim_stat_done done, void *context);

/* How a request ended. */
enum spdk_shim_outcome {
	SPDK_SHIM_GOOD,
	/* SPDK did not take it: `code` is the errno, positive */
	SPDK_SHIM_REFUSED,
	/* it failed: the NVMe status says how */
	SPDK_SHIM_FAILED,
};

/* One request: the fields above `private_` are the caller's, and stay as they are until `done` was called. */
struct spdk_shim_io {
	/* enum spdk_shim_io_type */
	uint32_t type;
	int32_t iov_count;
	struct iovec *iov;
	/* what SPDK_SHIM_IO_COMPARE_AND_WRITE writes; as long as `iov` together */
	struct iovec *second_iov;
	int32_t second_iov_count;
	uint32_t reserved;
	/* of SPDK_SHIM_IO_ABORT: the address of the request to be aborted, which is compared and not looked at */
	uint64_t lba;
	uint64_t blocks;
	/* Called on the thread of the channel, never from within spdk_shim_io_start. */
	void (*done)(struct spdk_shim_io *io);
	/* For SPDK_SHIM_IO_LENT_…: copies between the lent memory and `iov`. Called as `done` is, and before it. */
	void (*move)(struct spdk_shim_io *io, struct iovec *lent, int32_t lent_count);
	/* Results. enum spdk_shim_outcome. */
	uint32_t outcome;
	int32_t code;
	/* NVMe status code type and status code, and the same as SCSI has it: sense key, additional code and qualifier */
	uint16_t nvme_type;
	uint16_t nvme_code;
	uint8_t scsi_status;
	uint8_t sense_key;
	uint8_t asc;
	uint8_t ascq;
	/* how often it had to wait for SPDK to have a place for it; added to */
	uint64_t waits;
	uint64_t private_[10];
};
/* Begins the request. Returns 0: `done` will be called; or a negative errno: it will not. What SPDK has no room for waits in
 * its queue and counts as begun. */
int spdk_shim_io_start(struct spdk_shim_io *io, struct spdk_bdev_desc *desc, struct spdk_io_channel *channel);
/* A request that waits for room, if this one does, is not begun any more: it ends refused, with ECANCELED, when there would be
 * room for it. */
void spdk_shim_io_give_up(struct spdk_shim_io *io);

/* Pieces of SPDK's pool of buffers that a device can reach. */
struct spdk_shim_buffers;
/* A user of the pool by this name; once per process and name, before subsystems are started. */
int spdk_shim_buffers_register(const char *name);
/* The calling thread's way into the pool, with so many large buffers of its own. NULL if there are not as many. */
struct spdk_shim_buffers *spdk_shim_buffers_open(const char *name, uint32_t small, uint32_t large);
void spdk_shim_buffers_close(struct spdk_shim_buffers *buffers);
/* Bytes of a small and of a large one. */
void spdk_shim_buffers_sizes(uint32_t *small, uint32_t *large);
/* A buffer of at least `len` bytes (at most a large one), or NULL if there is none at the moment. */
void *spdk_shim_buffers_take(struct spdk_shim_buffers *buffers, uint32_t len);
void spdk_shim_buffers_give(struct spdk_shim_buffers *buffers, void *buffer, uint32_t len);

/* For the tests: what the C compiler makes of our structures. */
enum spdk_shim_layout_of {
	SPDK_SHIM_LAYOUT_ENV_CONFIG,
	SPDK_SHIM_LAYOUT_BDEV_INFO,
	SPDK_SHIM_LAYOUT_BDEV_STAT,
	SPDK_SHIM_LAYOUT_IO,
};
struct spdk_shim_layout {
	size_t size;
	size_t align;
	/* of the last field */
	size_t offset;
};
struct spdk_shim_layout spdk_shim_layout(enum spdk_shim_layout_of which);

#endif
