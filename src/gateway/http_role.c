/*
 * gateway/http_role.c
 *		Who asks: the credentials of a request, what its connection has shown before, and how many requests a role may have. What the functions
 *		promise is in gateway/http_private.h.
 */
#include "base/streamext.h"

#include "common/base64.h"
#include "utils/timestamp.h"

#include "gateway/http_private.h"

/* Basic credentials: name and secret. False: they are none. */
static bool
http_basic(const char *coded, char **name, char **secret)
{
	int	  size = strlen(coded);
	char *plain = palloc(pg_b64_dec_len(size) + 1);
	char *colon;
#if PG_VERSION_NUM >= 180000
	int n = pg_b64_decode(coded, size, (uint8 *) plain, pg_b64_dec_len(size));
#else
	int n = pg_b64_decode(coded, size, plain, pg_b64_dec_len(size));
#endif

	if (n < 0)
		return false;
	plain[n] = '\0';
	colon = strchr(plain, ':');
	if (colon == NULL)
		return false;
	*colon = '\0';
	*name = plain;
	*secret = colon + 1;
	return true;
}

static Oid
http_authenticate(HttpRequest *request, const char *header)
{
	Gateway *gateway = request->server->gateway;
	char	*name, *secret;
	Oid		 role = InvalidOid;

	if (pg_strncasecmp(header, "Bearer ", 7) == 0)
		return streamext_gateway_authenticate(gateway, NULL, header + 7, strlen(header + 7), request->digest);
	if (pg_strncasecmp(header, "Basic ", 6) == 0 && http_basic(header + 6, &name, &secret))
	{
		role = streamext_gateway_authenticate(gateway, name, secret, strlen(secret), request->digest);
		explicit_bzero(secret, strlen(secret));
	}
	return role;
}

void
streamext_http_forget(HttpConnection *connection)
{
	if (connection->shown != NULL)
		explicit_bzero(connection->shown, connection->shown_size);
	free(connection->shown);
	connection->shown = NULL;
}

static void
http_remember(HttpRequest *request, const char *header, Oid role)
{
	HttpConnection *connection = request->connection;

	streamext_http_forget(connection);
	connection->shown = strdup(header);
	connection->shown_size = strlen(header);
	connection->version = request->server->gateway->version;
	connection->role = role;
	memcpy(connection->digest, request->digest, sizeof(connection->digest));
}

/* Senders show the same on a connection again and again. */
static Oid
http_known(HttpRequest *request, const char *header)
{
	const HttpConnection *connection = request->connection;

	if (connection->shown == NULL || connection->version != request->server->gateway->version ||
		connection->shown_size != strlen(header) ||
		!streamext_gateway_same(connection->shown, header, connection->shown_size))
		return InvalidOid;
	memcpy(request->digest, connection->digest, sizeof(request->digest));
	return connection->role;
}

static Oid
http_shown(HttpRequest *request, const char *header)
{
	Oid role = http_known(request, header);

	if (OidIsValid(role))
		return role;
	role = http_authenticate(request, header);
	if (OidIsValid(role))
		http_remember(request, header, role);
	return role;
}

Oid
streamext_http_role(HttpRequest *request, enum MHD_Result *result)
{
	const char *header = streamext_http_header(request, "Authorization");
	Oid			role = header != NULL ? http_shown(request, header) : request->server->gateway->anonymous;

	if (!OidIsValid(role))
		*result = streamext_http_refuse(request, MHD_HTTP_UNAUTHORIZED, true, -1,
										header != NULL ? "the credentials are not those of any role"
													   : "credentials are required",
										"Send Authorization: Bearer and the token of a user mapping of the server.");
	return role;
}

bool
streamext_http_within_rate(HttpServer *server, Oid role)
{
	TimestampTz now = GetCurrentTimestamp();
	HttpRate   *rate = NULL;

	if (server->rate_limit == 0)
		return true;
	for (int i = 0; i < server->nrates && rate == NULL; i++)
		if (server->rates[i].role == role)
			rate = &server->rates[i];
	if (rate == NULL)
	{
		HttpRate *larger = realloc(server->rates, sizeof(HttpRate) * (server->nrates + 1));

		if (larger == NULL)
			return false;
		server->rates = larger;
		rate = &larger[server->nrates++];
		*rate = (HttpRate){ role, server->rate_limit, now };
	}
	rate->tokens += (double) Max(now - rate->at, 0) / USECS_PER_SEC * server->rate_limit;
	rate->tokens = Min(rate->tokens, server->rate_limit);
	rate->at = now;
	if (rate->tokens < 1)
		return false;
	rate->tokens -= 1;
	return true;
}
