/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* unpin doctor: what its files know of each other. */
#ifndef UNPIN_DOCTOR_H
#define UNPIN_DOCTOR_H

#include <infiniband/verbs.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#define DOCTOR_DEVICES	64

/**
 * struct doctor_device - an RDMA device
 * @name: as in /sys/class/infiniband
 * @node: its file for programs, or empty
 * @netdev: the interface that it is on, or empty
 * @context: open; NULL if it cannot be opened
 * @error: why it cannot: an errno, or 0 if libibverbs does not know the device
 * @attr: what it can do, if it is open
 * @odp: memory can be on demand there
 * @port: one that is active, and has an address; else 0
 * @port_attr: what is to know of it
 * @gid_index: the address
 * @gid: the same; there need not be one on InfiniBand
 */
struct doctor_device {
	char name[NAME_MAX + 1];
	char node[NAME_MAX + 32];
	char netdev[NAME_MAX + 1];
	struct ibv_context *context;
	int error;
	struct ibv_device_attr_ex attr;
	bool odp;
	unsigned int port;
	struct ibv_port_attr port_attr;
	int gid_index;
	union ibv_gid gid;
};

/**
 * struct doctor - what was asked for, and what is there
 * @wanted: the name of the only device that counts, or NULL
 * @verbose: say more
 * @transfer: try it
 * @devices: those that count
 * @count: how many
 * @usable: the first with which a transfer can be tried, or NULL
 * @odp: one of them has on-demand paging: it does not matter then what rxe lacks
 * @ours: the rdma_rxe that is loaded is ours
 */
struct doctor {
	const char *wanted;
	bool verbose;
	bool transfer;
	struct doctor_device devices[DOCTOR_DEVICES];
	unsigned int count;
	const struct doctor_device *usable;
	bool odp;
	bool ours;
};

/* doctor_say.c */
void doctor_ok(const char *what, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void doctor_note(const char *what, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void doctor_missing(const char *what, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
void doctor_lacks(bool matters, const char *what, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void doctor_remedy(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void doctor_detail(const struct doctor *d, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
unsigned int doctor_missing_count(void);

/* doctor_file.c */
bool doctor_read(char *text, size_t len, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
bool doctor_exists(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
long doctor_value(const char *path, const char *name);
bool doctor_has_line(const char *path, const char *text, char *line, size_t len);

/* doctor_kernel.c, doctor_module.c, doctor_machine.c */
void doctor_kernel(const struct doctor *d);
void doctor_remedy_kernel(void);
void doctor_module(const struct doctor *d);
void doctor_machine(const struct doctor *d);

/* doctor_device.c, doctor_port.c, doctor_ability.c, doctor_transfer.c */
void doctor_find_devices(struct doctor *d);
void doctor_close_devices(struct doctor *d);
void doctor_device(const struct doctor *d);
void doctor_find_port(struct doctor_device *dev);
void doctor_port(const struct doctor_device *dev, bool matters);
void doctor_ability(const struct doctor *d);
bool doctor_can_transfer(const struct doctor_device *dev);
void doctor_transfer(const struct doctor *d);

#endif
