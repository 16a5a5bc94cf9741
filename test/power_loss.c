/*
 * power_loss.c
 *		A machine that loses its power, for test_journal.py: loaded into the server (LD_PRELOAD), it notes what of the journals would
 *		be on the disk.
 *
 * Below LOSS_KEPT it keeps, under the same path, what a journal's file held when it was last synced, and in "names" a file for each
 * name in a directory that was synced ('/' as '!'). While there is a file LOSS_KEPT/die, the next process that would sync a
 * journal's file kills itself first. Nothing is really synced. While there is a file LOSS_KEPT/quota, writes to journals fail as they do
 * when the user's quota of the disk is used up.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Makes all directories above path. */
static void
loss_parents(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/'))
	{
		*slash = '\0';
		mkdir(path, 0777);
		*slash = '/';
	}
}

static void
loss_keep_file(const char *kept, const char *path, off_t size)
{
	char		to[8192],
				half[8192 + 8];
	char	   *bytes = malloc(size + 1);
	int			from = open(path, O_RDONLY | O_CLOEXEC),
				fd;

	snprintf(to, sizeof(to), "%s%s", kept, path);
	snprintf(half, sizeof(half), "%s.half", to);
	loss_parents(to);
	fd = open(half, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (from < 0 || fd < 0 || read(from, bytes, size) != size || write(fd, bytes, size) != size || rename(half, to) != 0)
		abort();
	close(from);
	close(fd);
	free(bytes);
}

static void
loss_keep_names(const char *kept, const char *path)
{
	DIR		   *dir = opendir(path);

	for (struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;)
	{
		char		name[8192],
					to[16384];

		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		for (char *c = name; *c != '\0'; c++)
			if (*c == '/')
				*c = '!';
		snprintf(to, sizeof(to), "%s/names/%s", kept, name);
		loss_parents(to);
		close(open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
	}
	if (dir != NULL)
		closedir(dir);
}

/* The file's path, if it is the data directory or of the journals. */
static int
loss_is_ours(int fd, char path[4096])
{
	const char *data = getenv("LOSS_DATA");
	char		link[64];
	ssize_t		length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, 4095);
	if (data == NULL || length < 0)
		return 0;
	path[length] = '\0';
	if (strncmp(path, data, strlen(data)) != 0)
		return 0;
	return strcmp(path, data) == 0 || strncmp(path + strlen(data), "/streamext", strlen("/streamext")) == 0;
}

static int
loss_sync(int fd)
{
	const char *kept = getenv("LOSS_KEPT");
	char		path[4096],
				die[4096];
	struct stat st;

	if (kept == NULL || !loss_is_ours(fd, path) || fstat(fd, &st) != 0)
		return 0;
	if (S_ISDIR(st.st_mode))
		loss_keep_names(kept, path);
	else
	{
		snprintf(die, sizeof(die), "%s/die", kept);
		if (unlink(die) == 0)
			kill(getpid(), SIGKILL);
		loss_keep_file(kept, path, st.st_size);
	}
	return 0;
}

int
fsync(int fd)
{
	return loss_sync(fd);
}

int
fdatasync(int fd)
{
	return loss_sync(fd);
}

ssize_t
pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
	const char *kept = getenv("LOSS_KEPT");
	char		path[4096],
				quota[4096];

	if (kept != NULL && loss_is_ours(fd, path))
	{
		snprintf(quota, sizeof(quota), "%s/quota", kept);
		if (access(quota, F_OK) == 0)
		{
			errno = EDQUOT;
			return -1;
		}
	}
	return syscall(SYS_pwrite64, fd, bytes, size, offset);
}

ssize_t
pwrite64(int fd, const void *bytes, size_t size, off_t offset)
{
	return pwrite(fd, bytes, size, offset);
}
