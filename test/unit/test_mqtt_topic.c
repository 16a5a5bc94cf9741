#include "postgres.h"

#include "source/mqtt/topic.h"
#include "unit.h"

void
test_mqtt_topic(void)
{
	CHECK(streamext_mqtt_matches("a/b", "a/b") && !streamext_mqtt_matches("a/b", "a/bc") &&
		  !streamext_mqtt_matches("a/b", "a"));
	CHECK(streamext_mqtt_matches("#", "a/b") && streamext_mqtt_matches("a/#", "a") &&
		  streamext_mqtt_matches("a/#", "a/b/c"));
	CHECK(!streamext_mqtt_matches("a/#", "ab") && !streamext_mqtt_matches("#", "$SYS/x") &&
		  !streamext_mqtt_matches("+/x", "$SYS/x"));
	CHECK(streamext_mqtt_matches("+", "a") && !streamext_mqtt_matches("+", "a/b") &&
		  streamext_mqtt_matches("+/+", "/a"));
	CHECK(streamext_mqtt_matches("/+", "/a") && !streamext_mqtt_matches("+", "/a") &&
		  streamext_mqtt_matches("a/+/c", "a//c"));
	CHECK(streamext_mqtt_matches("a/+", "a/") && !streamext_mqtt_matches("a/+", "a") &&
		  streamext_mqtt_matches("a/+/#", "a/b"));
	CHECK(streamext_mqtt_matches("$SYS/#", "$SYS/x"));
	CHECK(strcmp(streamext_mqtt_plain_filter("$share/g/a/#"), "a/#") == 0);
	CHECK(strcmp(streamext_mqtt_plain_filter("$share/g"), "$share/g") == 0);
	CHECK(strcmp(streamext_mqtt_marker_topic("a/+#b"), "streamext/flush/a___b") == 0);
}
