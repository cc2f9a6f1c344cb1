#include "shim.h"

#include <spdk/bdev_module.h>
#include <spdk/json.h>
#include <spdk/notify.h>
#include <spdk/nvme_spec.h>
#include <spdk/scsi_spec.h>
#include <spdk/string.h>

const char *
spdk_shim_version_string(void)
{
	return SPDK_VERSION_STRING;
}

/* Log */

static spdk_shim_log_sink g_sink;

static void
log_line(int level, const char *file, const int line, const char *func, const char *format, va_list args)
{
	char text[1024];
	int len;

	(void)file;
	(void)line;
	(void)func;
	/* The levels that log_set_level and log_set_print_level change: SPDK leaves them to whoever has taken the log. */
	if (level > (int)spdk_log_get_print_level() && level > (int)spdk_log_get_level()) {
		return;
	}
	len = vsnprintf(text, sizeof(text), format, args);
	if (len < 0) {
		return;
	}
	if ((size_t)len >= sizeof(text)) {
		len = sizeof(text) - 1;
	}
	while (len > 0 && text[len - 1] == '\n') {
		len--;
	}
	if (len > 0) {
		g_sink(level, text, (size_t)len);
	}
}

void
spdk_shim_log_to(spdk_shim_log_sink sink, int level)
{
	g_sink = sink;
	spdk_log_open(log_line);
	spdk_log_set_level((enum spdk_log_level)level);
	spdk_log_set_print_level((enum spdk_log_level)level);
}

/* Methods of SPDK's application framework that mean something without it */

/* Its server starts when subsystems have. */
static void
rpc_framework_wait_init(struct spdk_jsonrpc_request *request, const struct spdk_json_val *params)
{
	if (params != NULL) {
		spdk_jsonrpc_send_error_response(request, SPDK_JSONRPC_ERROR_INVALID_PARAMS,
						 "framework_wait_init requires no parameters");
		return;
	}
	spdk_jsonrpc_send_bool_response(request, true);
}
SPDK_RPC_REGISTER("framework_wait_init", rpc_framework_wait_init, SPDK_RPC_STARTUP | SPDK_RPC_RUNTIME)

/* Environment */

int
spdk_shim_env_start(const struct spdk_shim_env_config *config)
{
	struct spdk_env_opts opts = {};

	opts.opts_size = sizeof(opts);
	spdk_env_opts_init(&opts);
	opts.name = config->name;
	opts.core_mask = NULL;
	opts.lcore_map = config->lcores;
	if (config->lcores == NULL) {
		opts.core_mask = "0x1";
	}
	opts.mem_size = config->mem_mib;
	opts.no_pci = config->no_pci;
	opts.no_huge = config->no_huge;
	/* no files for other processes */
	opts.shm_id = -1;
	opts.env_context = (void *)config->arguments;
	return spdk_env_init(&opts);
}

/* Threads */

static spdk_shim_thread_created g_created;

static int
thread_op(struct spdk_thread *thread, enum spdk_thread_op op)
{
	return op == SPDK_THREAD_OP_NEW ? g_created(thread) : 0;
}

static bool
thread_op_supported(enum spdk_thread_op op)
{
	return op == SPDK_THREAD_OP_NEW;
}

int
spdk_shim_threads_start(spdk_shim_thread_created created, size_t messages)
{
	g_created = created;
	return spdk_thread_lib_init_ext(thread_op, thread_op_supported, 0, messages);
}

bool
spdk_shim_on_app_thread(void)
{
	return spdk_thread_is_app_thread(NULL);
}

/* Block devices */

enum spdk_shim_presence
spdk_shim_bdev_presence(const char *name)
{
	struct spdk_bdev *bdev = spdk_bdev_get_by_name(name);

	if (bdev == NULL) {
		return SPDK_SHIM_ABSENT;
	}
	return bdev->internal.claim_type == SPDK_BDEV_CLAIM_NONE ? SPDK_SHIM_FREE : SPDK_SHIM_CLAIMED;
}

struct registrations {
	uint64_t next;
	bool any;
};

static int
note_registration(uint64_t index, const struct spdk_notify_event *event, void *arg)
{
	struct registrations *seen = arg;

	seen->next = index + 1;
	seen->any |= strncmp(event->type, "bdev_register", sizeof(event->type)) == 0;
	return 0;
}

bool
spdk_shim_bdevs_registered(uint64_t *next)
{
	struct registrations seen = { .next = *next };

	spdk_notify_foreach_event(*next, UINT64_MAX, note_registration, &seen);
	*next = seen.next;
	return seen.any;
}

void
spdk_shim_bdev_info(struct spdk_bdev_desc *desc, struct spdk_shim_bdev_info *info)
{
	static const enum spdk_bdev_io_type types[] = {
		SPDK_BDEV_IO_TYPE_READ, SPDK_BDEV_IO_TYPE_WRITE, SPDK_BDEV_IO_TYPE_UNMAP, SPDK_BDEV_IO_TYPE_FLUSH,
		SPDK_BDEV_IO_TYPE_RESET, SPDK_BDEV_IO_TYPE_WRITE_ZEROES, SPDK_BDEV_IO_TYPE_COMPARE,
		SPDK_BDEV_IO_TYPE_COMPARE_AND_WRITE, SPDK_BDEV_IO_TYPE_ABORT,
	};
	struct spdk_bdev *bdev = spdk_bdev_desc_get_bdev(desc);
	size_t alignment = spdk_bdev_get_buf_align(bdev);
	size_t i;

	memset(info, 0, sizeof(*info));
	info->name = spdk_bdev_get_name(bdev);
	info->product = spdk_bdev_get_product_name(bdev);
	info->block_count = spdk_bdev_get_num_blocks(bdev);
	info->block_size = spdk_bdev_get_block_size(bdev);
	info->physical_block_size = spdk_bdev_get_physical_block_size(bdev);
	info->metadata_size = spdk_bdev_get_md_size(bdev);
	info->optimal_boundary = spdk_bdev_get_optimal_io_boundary(bdev);
	info->write_unit = spdk_bdev_get_write_unit_size(bdev);
	info->compare_write_max = spdk_bdev_get_acwu(bdev);
	info->alignment = alignment > UINT32_MAX ? UINT32_MAX : (uint32_t)alignment;
	info->write_cache = spdk_bdev_has_write_cache(bdev);
	info->zoned = spdk_bdev_is_zoned(bdev);
	/*
	 * Devices on top of others pass the question on, and mean something else: the error bdev counts and spoils reads and
	 * writes, and leaves these alone. Those that are memory themselves, without anything to check, are one module.
	 */
	info->lends = strcmp(spdk_bdev_get_module_name(bdev), "malloc") == 0 && spdk_bdev_get_md_size(bdev) == 0 &&
		      spdk_bdev_io_type_supported(bdev, SPDK_BDEV_IO_TYPE_ZCOPY);
	for (i = 0; i < SPDK_COUNTOF(types); i++) {
		if (spdk_bdev_io_type_supported(bdev, types[i])) {
			info->io_types |= 1u << types[i];
		}
	}
}

struct stat_call {
	struct spdk_bdev_io_stat stat;
	struct spdk_shim_bdev_stat *out;
	spdk_shim_stat_done done;
	void *context;
};

static void
stat_done(struct spdk_bdev *bdev, struct spdk_bdev_io_stat *stat, void *arg, int rc)
{
	struct stat_call *call = arg;

	(void)bdev;
	if (rc == 0) {
		call->out->read_bytes = stat->bytes_read;
		call->out->reads = stat->num_read_ops;
		call->out->written_bytes = stat->bytes_written;
		call->out->writes = stat->num_write_ops;
		call->out->unmapped_bytes = stat->bytes_unmapped;
		call->out->unmaps = stat->num_unmap_ops;
	}
	call->done(call->context, rc);
	free(call);
}

int
spdk_shim_bdev_stat(struct spdk_bdev_desc *desc, struct spdk_shim_bdev_stat *stat, spdk_shim_stat_done done, void *context)
{
	struct stat_call *call = calloc(1, sizeof(*call));

	if (call == NULL) {
		return -ENOMEM;
	}
	call->out = stat;
	call->done = done;
	call->context = context;
#if SPDK_VERSION < SPDK_VERSION_NUM(25, 1, 0)
	spdk_bdev_get_device_stat(spdk_bdev_desc_get_bdev(desc), &call->stat, stat_done, call);
#else
	spdk_bdev_get_device_stat(spdk_bdev_desc_get_bdev(desc), &call->stat, SPDK_BDEV_RESET_STAT_NONE, stat_done, call);
#endif
	return 0;
}

/* What the shim keeps of a request. */
struct io_private {
	struct spdk_bdev_desc *desc;
	struct spdk_io_channel *channel;
	struct spdk_bdev_io_wait_entry wait;
	/* only looked at while it waits */
	bool given_up;
};
SPDK_STATIC_ASSERT(sizeof(struct io_private) <= sizeof(((struct spdk_shim_io *)0)->private_), "room for the wait entry");

static struct io_private *
io_private(struct spdk_shim_io *io)
{
	return (struct io_private *)io->private_;
}

static void
io_done(struct spdk_bdev_io *bdev_io, bool success, void *arg)
{
	struct spdk_shim_io *io = arg;

	if (spdk_likely(success)) {
		io->outcome = SPDK_SHIM_GOOD;
	} else {
		uint32_t cdw0;
		int type, code, status, key, asc, ascq;

		spdk_bdev_io_get_nvme_status(bdev_io, &cdw0, &type, &code);
		spdk_bdev_io_get_scsi_status(bdev_io, &status, &key, &asc, &ascq);
		/* Before 26.05 a difference that SPDK finds itself is, to NVMe, an internal error. */
		if (key == SPDK_SCSI_SENSE_MISCOMPARE) {
			type = SPDK_NVME_SCT_MEDIA_ERROR;
			code = SPDK_NVME_SC_COMPARE_FAILURE;
		}
		io->outcome = SPDK_SHIM_FAILED;
		io->nvme_type = (uint16_t)type;
		io->nvme_code = (uint16_t)code;
		io->scsi_status = (uint8_t)status;
		io->sense_key = (uint8_t)key;
		io->asc = (uint8_t)asc;
		io->ascq = (uint8_t)ascq;
	}
	spdk_bdev_free_io(bdev_io);
	io->done(io);
}

static void
move_lent(struct spdk_bdev_io *bdev_io, struct spdk_shim_io *io)
{
	struct iovec *lent;
	int count;

	spdk_bdev_io_get_iovec(bdev_io, &lent, &count);
	io->move(io, lent, count);
}

static void
lent_read_done(struct spdk_bdev_io *bdev_io, bool success, void *arg)
{
	if (spdk_likely(success)) {
		move_lent(bdev_io, arg);
	}
	io_done(bdev_io, success, arg);
}

/* The device has lent what is to be written: moves the data, and gives it back. Nothing else runs on this thread in between, so that
 * who waits for the blocks on another one (a compare-and-write) gets them when all of it has moved. */
static void
lent_write_started(struct spdk_bdev_io *bdev_io, bool success, void *arg)
{
	struct spdk_shim_io *io = arg;
	int rc;

	if (spdk_unlikely(!success)) {
		io_done(bdev_io, false, io);
		return;
	}
	move_lent(bdev_io, io);
	rc = spdk_bdev_zcopy_end(bdev_io, true, io_done, io);
	if (spdk_unlikely(rc != 0)) {
		io->outcome = SPDK_SHIM_REFUSED;
		io->code = -rc;
		spdk_bdev_free_io(bdev_io);
		io->done(io);
	}
}

static int
io_submit(struct spdk_shim_io *io)
{
	struct spdk_bdev_desc *desc = io_private(io)->desc;
	struct spdk_io_channel *channel = io_private(io)->channel;

	switch (io->type) {
	case SPDK_SHIM_IO_READ:
		return spdk_bdev_readv_blocks(desc, channel, io->iov, io->iov_count, io->lba, io->blocks, io_done, io);
	case SPDK_SHIM_IO_WRITE:
		return spdk_bdev_writev_blocks(desc, channel, io->iov, io->iov_count, io->lba, io->blocks, io_done, io);
	case SPDK_SHIM_IO_UNMAP:
		return spdk_bdev_unmap_blocks(desc, channel, io->lba, io->blocks, io_done, io);
	case SPDK_SHIM_IO_FLUSH:
		return spdk_bdev_flush_blocks(desc, channel, io->lba, io->blocks, io_done, io);
	case SPDK_SHIM_IO_RESET:
		return spdk_bdev_reset(desc, channel, io_done, io);
	case SPDK_SHIM_IO_WRITE_ZEROES:
		return spdk_bdev_write_zeroes_blocks(desc, channel, io->lba, io->blocks, io_done, io);
	case SPDK_SHIM_IO_COMPARE:
		return spdk_bdev_comparev_blocks(desc, channel, io->iov, io->iov_count, io->lba, io->blocks, io_done, io);
	case SPDK_SHIM_IO_COMPARE_AND_WRITE:
		return spdk_bdev_comparev_and_writev_blocks(desc, channel, io->iov, io->iov_count, io->second_iov,
				io->second_iov_count, io->lba, io->blocks, io_done, io);
	case SPDK_SHIM_IO_ABORT:
		return spdk_bdev_abort(desc, channel, (void *)(uintptr_t)io->lba, io_done, io);
	case SPDK_SHIM_IO_LENT_READ:
		return spdk_bdev_read_blocks(desc, channel, NULL, io->lba, io->blocks, lent_read_done, io);
	case SPDK_SHIM_IO_LENT_WRITE:
		return spdk_bdev_zcopy_start(desc, channel, NULL, 0, io->lba, io->blocks, false, lent_write_started, io);
	default:
		return -EINVAL;
	}
}

static void io_again(void *arg);

/* Submits the request, or has it wait for a place. */
static int
io_submit_or_wait(struct spdk_shim_io *io)
{
	struct io_private *own = io_private(io);
	int rc = io_submit(io);

	/* An abort that waits may come when its request's place has another one in it. */
	if (spdk_likely(rc != -ENOMEM) || io->type == SPDK_SHIM_IO_ABORT) {
		return rc;
	}
	io->waits++;
	own->given_up = false;
	memset(&own->wait, 0, sizeof(own->wait));
	own->wait.bdev = spdk_bdev_desc_get_bdev(own->desc);
	own->wait.cb_fn = io_again;
	own->wait.cb_arg = io;
	rc = spdk_bdev_queue_io_wait(own->wait.bdev, own->channel, &own->wait);
	/* -EINVAL: there is a place, and it was something else that ran short; whoever has it may give it back. */
	if (rc == -EINVAL) {
		return spdk_thread_send_msg(spdk_get_thread(), io_again, io);
	}
	return rc;
}

static void
io_again(void *arg)
{
	struct spdk_shim_io *io = arg;
	int rc = io_private(io)->given_up ? -ECANCELED : io_submit_or_wait(io);

	if (rc != 0) {
		io->outcome = SPDK_SHIM_REFUSED;
		io->code = -rc;
		io->done(io);
	}
}

int
spdk_shim_io_start(struct spdk_shim_io *io, struct spdk_bdev_desc *desc, struct spdk_io_channel *channel)
{
	struct io_private *own = io_private(io);

	own->desc = desc;
	own->channel = channel;
	return io_submit_or_wait(io);
}

void
spdk_shim_io_give_up(struct spdk_shim_io *io)
{
	io_private(io)->given_up = true;
}

/* Buffers */

struct spdk_shim_buffers {
	struct spdk_iobuf_channel channel;
};

int
spdk_shim_buffers_register(const char *name)
{
	return spdk_iobuf_register_module(name);
}

struct spdk_shim_buffers *
spdk_shim_buffers_open(const char *name, uint32_t small, uint32_t large)
{
	struct spdk_shim_buffers *buffers = calloc(1, sizeof(*buffers));

	if (buffers != NULL && spdk_iobuf_channel_init(&buffers->channel, name, small, large) != 0) {
		free(buffers);
		return NULL;
	}
	return buffers;
}

void
spdk_shim_buffers_close(struct spdk_shim_buffers *buffers)
{
	spdk_iobuf_channel_fini(&buffers->channel);
	free(buffers);
}

void
spdk_shim_buffers_sizes(uint32_t *small, uint32_t *large)
{
	struct spdk_iobuf_opts opts = {};

	spdk_iobuf_get_opts(&opts, sizeof(opts));
	*small = opts.small_bufsize;
	*large = opts.large_bufsize;
}

void *
spdk_shim_buffers_take(struct spdk_shim_buffers *buffers, uint32_t len)
{
	return spdk_iobuf_get(&buffers->channel, len, NULL, NULL);
}

void
spdk_shim_buffers_give(struct spdk_shim_buffers *buffers, void *buffer, uint32_t len)
{
	spdk_iobuf_put(&buffers->channel, buffer, len);
}

/* Layouts */

#define LAYOUT(type, field) ((struct spdk_shim_layout) { sizeof(type), _Alignof(type), offsetof(type, field) })

struct spdk_shim_layout
spdk_shim_layout(enum spdk_shim_layout_of which)
{
	switch (which) {
	case SPDK_SHIM_LAYOUT_ENV_CONFIG:
		return LAYOUT(struct spdk_shim_env_config, no_huge);
	case SPDK_SHIM_LAYOUT_BDEV_INFO:
		return LAYOUT(struct spdk_shim_bdev_info, io_types);
	case SPDK_SHIM_LAYOUT_BDEV_STAT:
		return LAYOUT(struct spdk_shim_bdev_stat, unmaps);
	case SPDK_SHIM_LAYOUT_IO:
		return LAYOUT(struct spdk_shim_io, private_);
	}
	return (struct spdk_shim_layout) { 0, 0, 0 };
}
