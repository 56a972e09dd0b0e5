// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The kernel: whether it is one that the modules are made for, has what they need, and
 * takes modules that nobody has signed. Where they run already that is answered.
 */
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "doctor.h"

#define SYMBOLS	"/proc/kallsyms"
#define EFI_SECURE_BOOT	\
	"/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

static const char * const needed[] = {
	"CONFIG_MODULES", "CONFIG_MMU_NOTIFIER", "CONFIG_HMM_MIRROR", "CONFIG_INTERVAL_TREE",
	"CONFIG_MEMCG", "CONFIG_INFINIBAND", "CONFIG_INFINIBAND_USER_ACCESS",
};

/* By the names that the kernel lists, where it has no file with its configuration. */
static const char * const needed_symbols[] = {
	" mmu_interval_notifier_insert", " hmm_range_fault",
};

#define COUNT(a)	(sizeof(a) / sizeof((a)[0]))

/* Of Debian, by its release; "not the cloud kernel" is in the name. */
void doctor_remedy_kernel(void)
{
	char line[128];
	bool old = doctor_has_line("/etc/os-release", "VERSION_ID=\"12\"", line, sizeof(line));

	doctor_remedy("apt-get install %s   # of Debian, not its cloud kernel; and boot it",
		      old ? "linux-image-6.12-amd64" : "linux-image-amd64");
}

static bool is_made_for(const struct utsname *u)
{
	return !strncmp(u->release, "6.12.", 5);
}

static void release(const struct doctor *d, const struct utsname *u)
{
	if (d->ours) {
		doctor_ok("kernel", "Linux %s, on which unpin's modules run", u->release);
	} else if (!is_made_for(u)) {
		doctor_lacks(!d->odp, "kernel", "Linux %s; unpin's modules are for 6.12",
			     u->release);
		doctor_remedy_kernel();
	} else if (strcmp(u->machine, "x86_64")) {
		doctor_note("kernel", "Linux %s on %s, where unpin's modules are not tested",
			    u->release, u->machine);
	} else {
		doctor_ok("kernel", "Linux %s", u->release);
	}
}

static bool config_path(char *path, size_t len, const char *release)
{
	static const char * const names[] = {
		"/boot/config-%s", "/lib/modules/%s/config", "/lib/modules/%s/build/.config",
	};
	char line[256];
	size_t i;

	for (i = 0; i < COUNT(names); i++) {
		snprintf(path, len, names[i], release);
		if (doctor_has_line(path, "CONFIG_", line, sizeof(line)))
			return true;
	}
	return false;
}

static bool is_set(const char *path, const char *option)
{
	char want[64], line[256];

	snprintf(want, sizeof(want), "%s=", option);
	return doctor_has_line(path, want, line, sizeof(line)) &&
	       !strncmp(line, want, strlen(want));
}

static unsigned int by_config(const struct doctor *d, const char *path)
{
	unsigned int lacks = 0;
	size_t i;

	for (i = 0; i < COUNT(needed); i++) {
		if (is_set(path, needed[i]))
			continue;
		doctor_lacks(!d->odp, "kernel", "it has no %s, by %s", needed[i], path);
		lacks++;
	}
	if (is_set(path, "CONFIG_PREEMPT_RT")) {
		doctor_lacks(!d->odp, "kernel", "it has CONFIG_PREEMPT_RT, by %s", path);
		lacks++;
	}
	return lacks;
}

static unsigned int by_symbols(const struct doctor *d)
{
	unsigned int lacks = 0;
	char line[512];
	size_t i;

	for (i = 0; i < COUNT(needed_symbols); i++) {
		if (doctor_has_line(SYMBOLS, needed_symbols[i], line, sizeof(line)))
			continue;
		doctor_lacks(!d->odp, "kernel", "it has no%s()", needed_symbols[i]);
		lacks++;
	}
	return lacks;
}

static void config(const struct doctor *d, const char *release)
{
	const char *from = SYMBOLS;
	char path[256], line[512];
	unsigned int lacks;

	if (config_path(path, sizeof(path), release)) {
		from = path;
		lacks = by_config(d, path);
	} else if (doctor_has_line(SYMBOLS, " handle_mm_fault", line, sizeof(line))) {
		lacks = by_symbols(d);
	} else {
		doctor_note("kernel", "its configuration is nowhere to be read");
		return;
	}
	if (lacks)
		doctor_remedy_kernel();
	else
		doctor_ok("kernel", "it has what unpin's modules need, by %s", from);
}

/* Four bytes of attributes before the value. */
static bool secure_boot(void)
{
	FILE *f = fopen(EFI_SECURE_BOOT, "re");
	unsigned char bytes[5] = { 0 };
	bool on = f && fread(bytes, 1, sizeof(bytes), f) == sizeof(bytes) && bytes[4] == 1;

	if (f)
		fclose(f);
	return on;
}

/* Why a module has to be signed, or NULL. */
static const char *signatures_wanted(void)
{
	char text[128];

	if (doctor_read(text, sizeof(text), "/sys/kernel/security/lockdown"))
		return strstr(text, "[none]") ? NULL : "the kernel is locked down";
	if (doctor_read(text, sizeof(text), "/sys/module/module/parameters/sig_enforce") &&
	    *text == 'Y')
		return "the kernel was told so";
	return secure_boot() ? "Secure Boot is on" : NULL;
}

static void signatures(const struct doctor *d)
{
	const char *why = signatures_wanted();

	if (!why) {
		doctor_ok("kernel", "it takes modules that are not signed, as far as can be seen");
		return;
	}
	doctor_lacks(!d->odp, "kernel", "it takes no module that is not signed: %s", why);
	doctor_remedy("mokutil --disable-validation   # and reboot; or sign both modules");
}

void doctor_kernel(const struct doctor *d)
{
	struct utsname u;

	uname(&u);
	release(d, &u);
	if (d->ours)
		return;
	if (is_made_for(&u))
		config(d, u.release);
	signatures(d);
}
