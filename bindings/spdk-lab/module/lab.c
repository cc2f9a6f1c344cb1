/* A bdev in memory whose channels and comparisons fail when a test wants them to. What it does not do for tests it does plainly. */
#include <spdk/stdinc.h>
#include <spdk/bdev_module.h>
#include <spdk/nvme_spec.h>
#include <spdk/thread.h>

enum { BLOCKS = 2048, BLOCK_SIZE = 512 };

static uint8_t g_medium[BLOCKS * BLOCK_SIZE];
static struct spdk_bdev g_bdev;
static bool g_refuse;
static uint32_t g_miscompare, g_compared;

void
spdk_lab_refuse_channels(bool refuse)
{
	__atomic_store_n(&g_refuse, refuse, __ATOMIC_SEQ_CST);
}

void
spdk_lab_miscompare(uint32_t times)
{
	__atomic_store_n(&g_miscompare, times, __ATOMIC_SEQ_CST);
}

uint32_t
spdk_lab_compared(void)
{
	return __atomic_load_n(&g_compared, __ATOMIC_SEQ_CST);
}

enum move { TO_GUEST, TO_MEDIUM, COMPARE };

/* Whether everything was the same, if it was compared. */
static bool
move(enum move move, struct iovec *iovs, int count, uint8_t *at)
{
	int i;

	for (i = 0; i < count; at += iovs[i].iov_len, i++) {
		if (move == TO_GUEST) {
			memcpy(iovs[i].iov_base, at, iovs[i].iov_len);
		} else if (move == TO_MEDIUM) {
			memcpy(at, iovs[i].iov_base, iovs[i].iov_len);
		} else if (memcmp(at, iovs[i].iov_base, iovs[i].iov_len) != 0) {
			return false;
		}
	}
	return true;
}

static void
compare_and_write(struct spdk_bdev_io *io, uint8_t *at)
{
	uint32_t left = __atomic_load_n(&g_miscompare, __ATOMIC_SEQ_CST);

	__atomic_fetch_add(&g_compared, 1, __ATOMIC_SEQ_CST);
	if (left > 0) {
		__atomic_store_n(&g_miscompare, left - 1, __ATOMIC_SEQ_CST);
	}
	if (left > 0 || !move(COMPARE, io->u.bdev.iovs, io->u.bdev.iovcnt, at)) {
		spdk_bdev_io_complete_nvme_status(io, 0, SPDK_NVME_SCT_MEDIA_ERROR, SPDK_NVME_SC_COMPARE_FAILURE);
		return;
	}
	move(TO_MEDIUM, io->u.bdev.fused_iovs, io->u.bdev.fused_iovcnt, at);
	spdk_bdev_io_complete(io, SPDK_BDEV_IO_STATUS_SUCCESS);
}

static void
submit(struct spdk_io_channel *channel, struct spdk_bdev_io *io)
{
	uint8_t *at = g_medium + io->u.bdev.offset_blocks * BLOCK_SIZE;

	(void)channel;
	switch (io->type) {
	case SPDK_BDEV_IO_TYPE_READ:
		move(TO_GUEST, io->u.bdev.iovs, io->u.bdev.iovcnt, at);
		break;
	case SPDK_BDEV_IO_TYPE_WRITE:
		move(TO_MEDIUM, io->u.bdev.iovs, io->u.bdev.iovcnt, at);
		break;
	case SPDK_BDEV_IO_TYPE_COMPARE_AND_WRITE:
		compare_and_write(io, at);
		return;
	default:
		spdk_bdev_io_complete(io, SPDK_BDEV_IO_STATUS_FAILED);
		return;
	}
	spdk_bdev_io_complete(io, SPDK_BDEV_IO_STATUS_SUCCESS);
}

static bool
io_type_supported(void *context, enum spdk_bdev_io_type type)
{
	(void)context;
	return type == SPDK_BDEV_IO_TYPE_READ || type == SPDK_BDEV_IO_TYPE_WRITE || type == SPDK_BDEV_IO_TYPE_COMPARE_AND_WRITE;
}

static int
channel_create(void *device, void *channel)
{
	(void)device;
	(void)channel;
	return __atomic_load_n(&g_refuse, __ATOMIC_SEQ_CST) ? -ENXIO : 0;
}

static void
channel_destroy(void *device, void *channel)
{
	(void)device;
	(void)channel;
}

static struct spdk_io_channel *
get_io_channel(void *context)
{
	(void)context;
	return spdk_get_io_channel(&g_medium);
}

static int
destruct(void *context)
{
	(void)context;
	spdk_io_device_unregister(&g_medium, NULL);
	return 0;
}

static const struct spdk_bdev_fn_table g_functions = {
	.destruct = destruct,
	.submit_request = submit,
	.io_type_supported = io_type_supported,
	.get_io_channel = get_io_channel,
};

static int lab_init(void);

static void
lab_fini(void)
{
}

static struct spdk_bdev_module g_module = {
	.name = "lab",
	.module_init = lab_init,
	.module_fini = lab_fini,
};

SPDK_BDEV_MODULE_REGISTER(lab, &g_module)

static int
lab_init(void)
{
	spdk_io_device_register(&g_medium, channel_create, channel_destroy, 1, "lab");
	g_bdev.name = "Lab0";
	g_bdev.product_name = "a bdev for tests";
	g_bdev.blocklen = BLOCK_SIZE;
	g_bdev.blockcnt = BLOCKS;
	g_bdev.fn_table = &g_functions;
	g_bdev.module = &g_module;
	return spdk_bdev_register(&g_bdev);
}
