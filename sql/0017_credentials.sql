-- Martlet 0017: what endpoints are authenticated with, beside signatures. Set by operators, read by dispatchers only.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(17, 'credentials');

-- `value` is JSON, or that JSON sealed. Write-only for operators: no role but the dispatcher's may select it.
--   basic               {"username", "password"}
--   bearer              {"token"}
--   client_certificate  {"certificate", "private_key"}, both PEM
--   oauth2              {"token_url", "client_id", "client_secret", "scope", "audience"}, the last two may be null
CREATE TABLE outbox.endpoint_credential (
  endpoint_id bigint NOT NULL REFERENCES outbox.endpoint ON DELETE CASCADE,
  kind        text NOT NULL,
  value       text NOT NULL,
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (endpoint_id, kind),
  CONSTRAINT endpoint_credential_kind_is_known CHECK (kind IN ('basic', 'bearer', 'client_certificate', 'oauth2')),
  CONSTRAINT endpoint_credential_is_at_most_256_kib CHECK (octet_length(value) <= 262144)
);
-- A request has one Authorization header.
CREATE UNIQUE INDEX endpoint_credential_authorization ON outbox.endpoint_credential (endpoint_id) WHERE kind <> 'client_certificate';

-- What is wrong with a text that goes into a header or a form, in words; null if nothing.
CREATE FUNCTION outbox.credential_text_problem(name text, value text, longest int, required boolean DEFAULT true) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN value IS NULL THEN CASE WHEN required THEN format('the %s is missing', name) END
    WHEN value = '' AND required THEN format('the %s is empty', name)
    WHEN octet_length(value) > longest THEN format('the %s is longer than %s bytes', name, longest)
    WHEN value ~ '[[:cntrl:]]' THEN format('the %s contains a control character (a line break, say)', name)
  END
$$;

-- What is wrong with a PEM certificate (the first of the chain and those that follow) or private key, in words; null if
-- nothing that can be seen without parsing what is inside.
CREATE FUNCTION outbox.pem_problem(name text, pem text, label text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN pem IS NULL OR pem = '' THEN format('the %s is missing', name)
    WHEN octet_length(pem) > 65536 THEN format('the %s is longer than 65536 bytes', name)
    WHEN pem ~ '-----BEGIN ENCRYPTED PRIVATE KEY-----|Proc-Type: *4,ENCRYPTED'
      THEN format('the %s is encrypted with a passphrase; take that off first: openssl pkey -in FILE', name)
    WHEN label = 'CERTIFICATE' AND pem ~ '-----BEGIN [A-Z ]*PRIVATE KEY-----' THEN 'the certificate contains a private key; give the two apart'
    WHEN pem !~ ('-----BEGIN ' || label || '-----[A-Za-z0-9+/=[:space:]]+-----END ' || label || '-----')
      THEN format('the %s is not PEM: it must have -----BEGIN %s-----, base64, and -----END %s-----', name,
                  replace(label, '([A-Z]+ )?', ''), replace(label, '([A-Z]+ )?', ''))
  END
$$;

-- What is wrong with a credential, in words that repeat nothing of it; null if nothing.
CREATE FUNCTION outbox.credential_problem(kind text, value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE kind
    WHEN 'basic' THEN coalesce(
      outbox.credential_text_problem('user name', value ->> 'username', 1024, false),
      outbox.credential_text_problem('password', value ->> 'password', 1024, false),
      CASE WHEN coalesce(value ->> 'username', '') || coalesce(value ->> 'password', '') = '' THEN 'the user name and the password are missing'
           WHEN value ->> 'username' ~ ':' THEN 'the user name contains a colon, which basic authentication cannot express' END)
    WHEN 'bearer' THEN coalesce(
      outbox.credential_text_problem('token', value ->> 'token', 4000),
      CASE WHEN value ->> 'token' ~ '[^!-~]' THEN 'the token contains a space or a character that is not ASCII' END)
    WHEN 'client_certificate' THEN coalesce(
      outbox.pem_problem('certificate', value ->> 'certificate', 'CERTIFICATE'),
      outbox.pem_problem('private key', value ->> 'private_key', '([A-Z]+ )?PRIVATE KEY'))
    WHEN 'oauth2' THEN coalesce(
      'the token URL is not usable: ' || outbox.url_problem(value ->> 'token_url'),
      outbox.credential_text_problem('client id', value ->> 'client_id', 1024),
      outbox.credential_text_problem('client secret', value ->> 'client_secret', 4000),
      outbox.credential_text_problem('scope', value ->> 'scope', 1024, false),
      outbox.credential_text_problem('audience', value ->> 'audience', 1024, false))
    ELSE 'there is no such kind; there are basic, bearer, client_certificate and oauth2'
  END
$$;

-- Stores a credential in place of the one of its kind, and of another one that fills the Authorization header. Dispatchers
-- learn of it with the endpoint's new version.
-- Locks: the endpoint's row, so that two who set different kinds at once do not meet at the index.
CREATE FUNCTION outbox.put_credential(endpoint bigint, new_kind text, new_value text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE outbox.endpoint e SET version = e.version WHERE e.id = put_credential.endpoint;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no endpoint %', endpoint USING ERRCODE = 'no_data_found', HINT = 'SELECT id, url FROM outbox.endpoint';
  END IF;
  IF new_kind <> 'client_certificate' THEN
    DELETE FROM outbox.endpoint_credential c
    WHERE c.endpoint_id = put_credential.endpoint AND c.kind NOT IN (new_kind, 'client_certificate');
  END IF;
  -- Not ON CONFLICT: EXCLUDED.value would need the right to read the column.
  UPDATE outbox.endpoint_credential c SET value = new_value, updated_at = clock_timestamp()
  WHERE c.endpoint_id = put_credential.endpoint AND c.kind = new_kind;
  IF NOT FOUND THEN
    INSERT INTO outbox.endpoint_credential (endpoint_id, kind, value) VALUES (endpoint, new_kind, new_value);
  END IF;
END $$;

CREATE FUNCTION outbox.set_plain_credential(endpoint bigint, kind text, value jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE problem CONSTANT text := outbox.credential_problem(kind, value);
BEGIN
  IF problem IS NOT NULL THEN
    RAISE EXCEPTION 'the credential is not usable: %', problem USING ERRCODE = 'check_violation';
  END IF;
  PERFORM outbox.put_credential(endpoint, kind, value::text);
END $$;

-- A credential that the command line has sealed, so that it is never here in plain. It cannot be looked into.
CREATE FUNCTION outbox.set_sealed_credential(endpoint bigint, kind text, sealed text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF outbox.sealed_by(sealed) IS NULL OR kind IS NULL THEN
    RAISE EXCEPTION 'this is not a sealed credential' USING ERRCODE = 'check_violation',
      HINT = 'Use outbox.set_basic_auth, outbox.set_bearer_token, outbox.set_client_certificate or outbox.set_oauth2.';
  END IF;
  PERFORM outbox.put_credential(endpoint, kind, sealed);
END $$;

-- Sends `Authorization: Basic …` with every request.
CREATE FUNCTION outbox.set_basic_auth(endpoint bigint, username text, password text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS
$$ SELECT outbox.set_plain_credential(endpoint, 'basic', jsonb_build_object('username', username, 'password', password)) $$;

-- Sends `Authorization: Bearer …` with every request.
CREATE FUNCTION outbox.set_bearer_token(endpoint bigint, token text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS
$$ SELECT outbox.set_plain_credential(endpoint, 'bearer', jsonb_build_object('token', token)) $$;

-- Shows a client certificate (mutual TLS): PEM, the client's own first; and its private key, PEM, without a passphrase.
CREATE FUNCTION outbox.set_client_certificate(endpoint bigint, certificate text, private_key text) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT outbox.set_plain_credential(endpoint, 'client_certificate',
                                     jsonb_build_object('certificate', certificate, 'private_key', private_key))
$$;

-- Sends `Authorization: Bearer …` with a token from `token_url` (RFC 6749, 4.4: client credentials).
CREATE FUNCTION outbox.set_oauth2(
  endpoint bigint, token_url text, client_id text, client_secret text, scope text DEFAULT NULL, audience text DEFAULT NULL
) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  SELECT outbox.set_plain_credential(endpoint, 'oauth2', jsonb_build_object(
    'token_url', token_url, 'client_id', client_id, 'client_secret', client_secret, 'scope', scope, 'audience', audience))
$$;

-- Takes credentials away: all of an endpoint, or one kind. Returns how many.
CREATE FUNCTION outbox.clear_credential(endpoint bigint, kind text DEFAULT NULL) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE cleared int;
BEGIN
  IF clear_credential.kind NOT IN ('basic', 'bearer', 'client_certificate', 'oauth2') THEN
    RAISE EXCEPTION 'there is no such kind; there are basic, bearer, client_certificate and oauth2' USING ERRCODE = 'check_violation';
  END IF;
  UPDATE outbox.endpoint e SET version = e.version WHERE e.id = clear_credential.endpoint;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no endpoint %', endpoint USING ERRCODE = 'no_data_found', HINT = 'SELECT id, url FROM outbox.endpoint';
  END IF;
  DELETE FROM outbox.endpoint_credential c
  WHERE c.endpoint_id = clear_credential.endpoint AND (clear_credential.kind IS NULL OR c.kind = clear_credential.kind);
  GET DIAGNOSTICS cleared = ROW_COUNT;
  RETURN cleared;
END $$;

-- Scheme, host and port of a URL: whom credentials are shown to.
CREATE FUNCTION outbox.url_origin(url text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$ SELECT lower(substring(url FROM '^[^:]+://[^/?]*')) $$;

-- Write-only means that setting another URL must not send the credentials there: whoever may change the endpoint could
-- read them at a host of his own.
CREATE FUNCTION outbox.keep_credentials_from_strangers() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF outbox.url_origin(NEW.url) IS DISTINCT FROM outbox.url_origin(OLD.url)
      AND EXISTS (SELECT FROM outbox.endpoint_credential c WHERE c.endpoint_id = NEW.id) THEN
    RAISE EXCEPTION 'endpoint % has credentials, and the new URL leads to another host', NEW.id
      USING ERRCODE = 'object_in_use',
        HINT = format('SELECT outbox.clear_credential(%s), change the URL, and set the credentials again.', NEW.id);
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER keep_credentials_from_strangers BEFORE UPDATE OF url ON outbox.endpoint
  FOR EACH ROW EXECUTE FUNCTION outbox.keep_credentials_from_strangers();

-- The keys that sign for an endpoint, without what is secret: what receivers may know. HMAC keys have no public half.
-- An ed25519 key made in plain SQL shows its public half as soon as a dispatcher has worked it out.
CREATE VIEW outbox.endpoint_key WITH (security_barrier) AS
SELECT s.endpoint_id, s.id, s.kind, s.public_key, s.created_at, s.expires_at FROM outbox.endpoint_secret s;

-- Which values are sealed, and under which key (the beginning of its SHA-256); null: in plain.
CREATE VIEW outbox.sealing WITH (security_barrier) AS
SELECT 'secret' AS what, s.endpoint_id, s.kind, s.expires_at, outbox.sealed_by(s.secret) AS sealed_by FROM outbox.endpoint_secret s
UNION ALL
SELECT 'credential', c.endpoint_id, c.kind, NULL, outbox.sealed_by(c.value) FROM outbox.endpoint_credential c;

-- Values that the sweep of the dispatcher (SealingSweep.swift) has to look at: in plain or sealed under another key than
-- `key_id`, if there is one, or without the public half that belongs to it. After the place named, so that values that
-- cannot be opened hold up no others.
-- Index: endpoint_secret_pkey.
CREATE FUNCTION outbox.unsealed_secrets(key_id text, after_endpoint bigint, after_id bigint, max_rows int)
RETURNS TABLE (endpoint_id bigint, id bigint, kind text, secret text, public_key text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT s.endpoint_id, s.id, s.kind, s.secret, s.public_key FROM outbox.endpoint_secret s
  WHERE (s.endpoint_id, s.id) > (after_endpoint, after_id)
    AND (outbox.sealed_by(s.secret) IS DISTINCT FROM key_id OR (s.kind = 'ed25519' AND s.public_key IS NULL))
  ORDER BY s.endpoint_id, s.id LIMIT max_rows
$$;
-- Index: endpoint_credential_pkey.
CREATE FUNCTION outbox.unsealed_credentials(key_id text, after_endpoint bigint, after_kind text, max_rows int)
RETURNS TABLE (endpoint_id bigint, kind text, value text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT c.endpoint_id, c.kind, c.value FROM outbox.endpoint_credential c
  WHERE (c.endpoint_id, c.kind) > (after_endpoint, after_kind) AND outbox.sealed_by(c.value) IS DISTINCT FROM key_id
  ORDER BY c.endpoint_id, c.kind LIMIT max_rows
$$;

GRANT SELECT ON outbox.endpoint_credential, outbox.endpoint_key, outbox.sealing TO outbox_dispatcher;
GRANT UPDATE (secret, public_key) ON outbox.endpoint_secret TO outbox_dispatcher;
GRANT UPDATE (value) ON outbox.endpoint_credential TO outbox_dispatcher;
GRANT SELECT ON outbox.endpoint_key, outbox.sealing TO outbox_operator;
-- Not of `endpoint_id` and `kind`: a row must not be moved to an endpoint elsewhere.
GRANT SELECT (endpoint_id, kind, created_at, updated_at), INSERT (endpoint_id, kind, value), UPDATE (value, updated_at), DELETE
  ON outbox.endpoint_credential TO outbox_operator;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outbox.credential_text_problem, outbox.pem_problem, outbox.credential_problem, outbox.put_credential,
  outbox.set_plain_credential, outbox.set_sealed_credential, outbox.set_basic_auth, outbox.set_bearer_token, outbox.set_client_certificate,
  outbox.set_oauth2, outbox.clear_credential, outbox.url_origin TO outbox_operator;
-- For the views and the trigger, which run a caller's statement: the dispatcher updates endpoints, too.
GRANT EXECUTE ON FUNCTION outbox.url_origin, outbox.unsealed_secrets, outbox.unsealed_credentials TO outbox_dispatcher;
COMMIT;
