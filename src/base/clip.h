/*
 * base/clip.h
 *		Texts in buffers of fixed size: error texts, reasons and names in slots and between threads. They are cut between two characters
 *		of the database's encoding, since half a character is no text that a client could be sent.
 */
#ifndef STREAMEXT_CLIP_H
#define STREAMEXT_CLIP_H

#include "postgres.h"

/* As strlcpy and snprintf, and allowed where these are: neither allocates, raises nor waits. */
extern void streamext_clip(char *to, const char *text, Size size);
extern void streamext_clip_format(char *to, Size size, const char *format, ...) pg_attribute_printf(3, 4);

#endif /* STREAMEXT_CLIP_H */
