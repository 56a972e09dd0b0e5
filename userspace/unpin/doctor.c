// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * unpin doctor: whether memory can be registered without pinning here, and what is
 * missing. It goes from the kernel to the device, one file for each, and ends with a
 * transfer (doctor_transfer.c), which is the proof. Nothing on the machine is changed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doctor.h"
#include "unpin.h"

#define EXIT_WORKS	0
#define EXIT_DOES_NOT	1
#define EXIT_USAGE	2

static const struct option options[] = {
	{ "device",		required_argument,	NULL, 'd' },
	{ "no-transfer",	no_argument,		NULL, 'n' },
	{ "verbose",		no_argument,		NULL, 'v' },
	{ "help",		no_argument,		NULL, 'h' },
	{ 0 }
};

static void help(void)
{
	puts("Usage: unpin doctor [OPTION]...\n"
	     "Say whether memory can be registered without pinning here, and what is missing.\n\n"
	     "  -d, --device=NAME       look at this RDMA device only\n"
	     "  -n, --no-transfer       leave out the transfer at the end\n"
	     "  -v, --verbose           say more of each finding\n"
	     "  -h, --help              this\n\n"
	     "Each line begins with 'ok', 'note' (worth to know, but it works) or 'missing'.\n"
	     "What can be done about it is in the lines below, as commands for root; nothing\n"
	     "is changed by itself. At the end 1 MiB is transferred on demand, there and back,\n"
	     "and the last line is the verdict. Exit status: 0 it works, 1 it does not,\n"
	     "2 the command was wrong.");
	exit(EXIT_WORKS);
}

static void apply(struct doctor *d, int option)
{
	switch (option) {
	case 'd':
		d->wanted = optarg;
		break;
	case 'n':
		d->transfer = false;
		break;
	case 'v':
		d->verbose = true;
		break;
	case 'h':
		help();
		break;
	default:
		error("'unpin doctor --help' tells what there is");
		exit(EXIT_USAGE);
	}
}

static void parse(struct doctor *d, int argc, char **argv)
{
	int option;

	argv[0] = program_invocation_short_name;
	while ((option = getopt_long(argc, argv, "d:nvh", options, NULL)) != -1)
		apply(d, option);
	if (optind < argc) {
		error("'%s' is no option; see 'unpin doctor --help'", argv[optind]);
		exit(EXIT_USAGE);
	}
}

static void try(const struct doctor *d)
{
	if (!d->transfer)
		doctor_note("transfer", "left out, as --no-transfer asks");
	else if (!d->usable)
		doctor_note("transfer", "not tried: there is no device for it");
	else
		doctor_transfer(d);
}

static int verdict(const struct doctor *d)
{
	unsigned int missing = doctor_missing_count();

	if (missing == 1)
		puts("does not work: one thing is missing, see above");
	else if (missing)
		printf("does not work: %u things are missing, see above\n", missing);
	else if (!d->transfer)
		puts("nothing is missing, but no transfer was tried");
	else
		printf("works: memory that is registered on demand with %s is not pinned\n",
		       d->usable->name);
	return missing ? EXIT_DOES_NOT : EXIT_WORKS;
}

/*
 * Devices are looked at before anything is said: what is not as with rxe is no fault
 * where another can do it.
 */
static int doctor(int argc, char **argv)
{
	static struct doctor d = { .transfer = true };
	int status;

	parse(&d, argc, argv);
	d.ours = doctor_exists("/sys/module/rdma_rxe/parameters/on_demand_mr");
	doctor_find_devices(&d);
	doctor_kernel(&d);
	doctor_module(&d);
	doctor_device(&d);
	doctor_ability(&d);
	doctor_machine(&d);
	try(&d);
	status = verdict(&d);
	doctor_close_devices(&d);
	if (fflush(stdout) || ferror(stdout)) {
		error("standard output: %s", strerror(errno));
		return EXIT_USAGE;
	}
	return status;
}

const struct command command_doctor = {
	.name = "doctor",
	.brief = "whether that works here, and what is missing",
	.main = doctor,
};
