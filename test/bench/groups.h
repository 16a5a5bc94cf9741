/*
 * groups.h
 *		Count, sum, min and max by (device, window): an open-addressing hash table with the keys' bytes beside it. One look-up and no
 *		allocation a record.
 */
#ifndef BENCH_GROUPS_H
#define BENCH_GROUPS_H

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

struct Group
{
	int64_t	 window;
	uint64_t hash;			/* 0: the slot is free */
	uint32_t name, length;	/* of the device, in `names` */
	int64_t	 count;
	double	 sum, min, max;
};

class Groups
{
public:
	void
	add(std::string_view device, int64_t window, double value)
	{
		uint64_t hash = hash_of(device, window);
		size_t	 at = hash & (slots.size() - 1);

		while (slots[at].hash != 0 && !(slots[at].hash == hash && slots[at].window == window && device_of(slots[at]) == device))
			at = (at + 1) & (slots.size() - 1);

		Group &group = slots[at];

		if (group.hash == 0)
		{
			group = {window, hash, static_cast<uint32_t>(names.size()), static_cast<uint32_t>(device.size()), 1, value, value, value};
			names.insert(names.end(), device.begin(), device.end());
			if (++used * 2 > slots.size())
				grow();
			return;
		}
		group.count++;
		group.sum += value;
		group.min = value < group.min ? value : group.min;
		group.max = value > group.max ? value : group.max;
	}

	template <typename Each>
	void
	for_each(Each each) const
	{
		for (auto &group : slots)
			if (group.hash != 0)
				each(group, device_of(group));
	}

	size_t
	size() const
	{
		return used;
	}

	/* Keeps the memory. */
	void
	clear()
	{
		memset(static_cast<void *>(slots.data()), 0, slots.size() * sizeof(Group));
		names.clear();
		used = 0;
	}

private:
	std::vector<Group> slots = std::vector<Group>(1 << 12);
	std::vector<char>  names;
	size_t			   used = 0;

	std::string_view
	device_of(const Group &group) const
	{
		return {names.data() + group.name, group.length};
	}

	static uint64_t
	hash_of(std::string_view device, int64_t window)
	{
		uint64_t hash = std::_Hash_bytes(device.data(), device.size(), static_cast<size_t>(window));

		return hash ? hash : 1;
	}

	void
	grow()
	{
		std::vector<Group> old(slots.size() * 2);

		old.swap(slots);
		for (auto &group : old)
			if (group.hash != 0)
			{
				size_t at = group.hash & (slots.size() - 1);

				while (slots[at].hash != 0)
					at = (at + 1) & (slots.size() - 1);
				slots[at] = group;
			}
	}
};

#endif
