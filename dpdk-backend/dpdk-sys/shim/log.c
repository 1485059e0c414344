/* EAL's and the drivers' messages, line by line, to a function of ours instead of the terminal. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include <sys/types.h>

static void (*to)(uint32_t level, const char *text, size_t len);

static ssize_t pass(void *cookie, const char *text, size_t len)
{
	(void)cookie;
	int level = rte_log_cur_msg_loglevel();
	if (to != NULL)
		to(level < 0 ? RTE_LOG_NOTICE : (uint32_t)level, text, len);
	return (ssize_t)len;
}

int volley_log_to(void (*line)(uint32_t level, const char *text, size_t len))
{
	cookie_io_functions_t functions = { .write = pass };
	to = line;
	FILE *stream = fopencookie(NULL, "w", functions);
	if (stream == NULL)
		return -errno;
	/* A message at a time: the level of the moment is the message's. */
	setvbuf(stream, NULL, _IOLBF, BUFSIZ);
	return rte_openlog_stream(stream);
}

/* Sends a descriptor to `where`; returns what it was. */
static int divert(int fd, int where)
{
	int kept = dup(fd);
	if (kept >= 0)
		dup2(where, fd);
	return kept;
}

static void restore(int fd, int kept)
{
	if (kept >= 0) {
		dup2(kept, fd);
		close(kept);
	}
}

int volley_eal_init(int argc, char **argv)
{
	int paper = memfd_create("volley-eal", MFD_CLOEXEC);
	if (paper < 0)
		return rte_eal_init(argc, argv);
	fflush(stdout);
	int out = divert(STDOUT_FILENO, paper);
	int err = divert(STDERR_FILENO, paper);
	int outcome = rte_eal_init(argc, argv);
	int error = rte_errno;
	fflush(stdout);
	restore(STDOUT_FILENO, out);
	restore(STDERR_FILENO, err);
	char text[4096];
	/* Of a usage, the beginning names the mistake. */
	ssize_t len = pread(paper, text, sizeof(text), 0);
	if (len > 0 && to != NULL)
		to(RTE_LOG_ERR, text, (size_t)len);
	close(paper);
	rte_errno = error;
	return outcome;
}
