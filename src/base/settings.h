/*
 * base/settings.h
 *		For _PG_init: the settings. The others read them from base/streamext.h.
 */
#ifndef STREAMEXT_SETTINGS_H
#define STREAMEXT_SETTINGS_H

extern void streamext_define_settings(void);

#endif /* STREAMEXT_SETTINGS_H */
