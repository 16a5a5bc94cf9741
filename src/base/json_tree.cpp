/*
 * base/json_tree.cpp
 *		The tree of wanted paths of a JSON payload (base/json_tree.h): made, grown, freed. All of it is malloc'd.
 */
#include <cstdlib>
#include <new>
#include <utility>

#include "base/json_tree.h"
#include "base/path.h"

void
streamext_json_free(JsonNode *node)
{
	for (int i = 0; i < node->nchildren; i++)
	{
		streamext_json_free(node->children[i]);
		delete node->children[i];
	}
	free(node->children);
	free(node->wanted);
	free(node->wants);
	free(node->name);
}

void
streamext_json_forget(const JsonNode *node, JsonValue *values)
{
	for (int i = 0; i < node->nwanted; i++)
		values[node->wanted[i]].kind = JSON_MISSING;
	for (int i = 0; i < node->nchildren; i++)
		streamext_json_forget(node->children[i], values);
}

namespace
{

/* Grows a malloc'd array by one; false: out of memory. */
template <typename T>
bool
json_append(T *&array, int n, T value)
{
	T *grown = static_cast<T *>(realloc(array, sizeof(T) * (n + 1)));

	if (grown == nullptr)
		return false;
	grown[n] = value;
	array = grown;
	return true;
}

/* The child with this name (or index, if name is NULL), made if need be; NULL: out of memory. */
JsonNode *
json_child(JsonNode *node, const char *name, size_t name_size, long index, bool nocase)
{
	for (int i = 0; i < node->nchildren; i++)
	{
		JsonNode *child = node->children[i];

		if (name == nullptr ? child->name == nullptr && child->index == index
							: child->name != nullptr && child->name_size == name_size && json_same(child, name))
			return child;
	}

	JsonNode *child = new (std::nothrow) JsonNode;

	if (child == nullptr)
		return nullptr;
	child->index = index;
	child->nocase = nocase;
	if (name != nullptr)
	{
		child->name = static_cast<char *>(malloc(name_size + 1));
		if (child->name == nullptr)
		{
			delete child;
			return nullptr;
		}
		memcpy(child->name, name, name_size);
		child->name_size = name_size;
		child->verbatim = memchr(name, '\\', name_size) == nullptr && memchr(name, '"', name_size) == nullptr;
	}
	if (!json_append(node->children, node->nchildren, child))
	{
		streamext_json_free(child);
		delete child;
		return nullptr;
	}
	node->nchildren++;
	return child;
}

} /* namespace */

int
streamext_json_add(JsonNode *root, const char *name, const char *path, bool nocase, JsonWant want, int number)
{
	JsonNode *node = root;

	if (path == nullptr)
		node = json_child(node, name, strlen(name), 0, nocase);
	else
	{
		PathReader reader;
		char	  *key = static_cast<char *>(malloc(strlen(path) + 1));
		PathStep   step = PATH_END;

		streamext_path_begin(&reader, path);
		while (key != nullptr && node != nullptr && (step = streamext_path_next(&reader, key)) < PATH_END)
			node = step == PATH_KEY ? json_child(node, key, reader.size, 0, nocase)
									: json_child(node, nullptr, 0, reader.index, false);
		free(key);
		if (step == PATH_FAULT)
			return -1;
		if (key == nullptr)
			return -2;
	}
	if (node == nullptr || !json_append(node->wanted, node->nwanted, number) ||
		!json_append(node->wants, node->nwanted, want))
		return -2;
	node->nwanted++;

	/* A string is unescaped only once: a wish for its raw text goes last. */
	for (int i = node->nwanted - 1; i > 0 && node->wants[i - 1] == JSON_WANT_RAW && node->wants[i] != JSON_WANT_RAW;
		 i--)
	{
		std::swap(node->wants[i - 1], node->wants[i]);
		std::swap(node->wanted[i - 1], node->wanted[i]);
	}
	return 0;
}
