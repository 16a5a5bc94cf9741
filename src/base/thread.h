/*
 * base/thread.h
 *		Threads of a process of PostgreSQL's. They call nothing of PostgreSQL that allocates, raises or waits.
 */
#ifndef STREAMEXT_THREAD_H
#define STREAMEXT_THREAD_H

#include <pthread.h>

/* 0, or an errno. The thread gets no signals: PostgreSQL's handlers are for the main one. */
extern int streamext_thread_start(pthread_t *thread, void *(*run)(void *), void *arg);

/* Whose pthread_cond_timedwait goes by CLOCK_MONOTONIC. */
extern void streamext_thread_cond_init(pthread_cond_t *cond);

#endif /* STREAMEXT_THREAD_H */
