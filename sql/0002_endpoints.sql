-- Martlet 0002: endpoints: validation, subscriptions, and the functions that operators and applications call.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(2, 'endpoints');

-- What is wrong with a URL, in words; null if nothing. The dispatcher checks again, with the address it dials; this is
-- the door, where a person still sees the answer.
CREATE FUNCTION outbox.url_problem(url text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN url IS NULL OR url = '' THEN 'it is empty'
    WHEN length(url) > 2048 THEN 'it is longer than 2048 characters'
    WHEN url ~ '[[:cntrl:][:space:]\\]' THEN 'it contains white space, a control character or a backslash'
    WHEN url !~* '^https?://' THEN 'it must begin with https:// (or http://, for a dispatcher run with --allow-http)'
    WHEN url ~ '#' THEN 'it contains a fragment (#...), which is never sent'
    WHEN url ~* '^https?://[^/?]*@' THEN 'it contains credentials (user@); use outbox.set_basic_auth instead'
    WHEN url !~* '^https?://(\[[0-9a-f:.%]+\]|[^]/?@:[]+)(:[0-9]{1,5})?([/?]|$)' THEN 'it has no valid host and port'
    WHEN substring(url FROM '(?i)^https?://(?:\[[^]]*\]|[^:/?]*):([0-9]+)')::int NOT BETWEEN 1 AND 65535
      THEN 'its port is not between 1 and 65535'
  END
$$;

-- What is wrong with an object of HTTP headers, in words; null if nothing.
CREATE FUNCTION outbox.headers_problem(headers jsonb) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE WHEN jsonb_typeof(headers) <> 'object' THEN 'they must be a JSON object of names and values' ELSE (
    SELECT CASE
        WHEN jsonb_typeof(value) <> 'string' THEN format('the value of %s must be a string', key)
        WHEN key !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]{1,100}$' THEN format('%s is not a valid header name', to_json(key))
        WHEN lower(key) ~ '^(webhook-.*|proxy-.*|ce-.*|traceparent|tracestate|host|content-length|content-type|transfer-encoding|connection|expect|te|trailer|upgrade|keep-alive)$'
          THEN format('%s is set by Martlet and cannot be overridden', key)
        WHEN lower(key) = 'authorization'
          THEN format('%s is a secret, and headers are not; use outbox.set_basic_auth, outbox.set_bearer_token or outbox.set_oauth2', key)
        WHEN value #>> '{}' ~ '[[:cntrl:]]' THEN format('the value of %s contains a control character (CR or LF, say)', key)
        WHEN length(value #>> '{}') > 4096 THEN format('the value of %s is longer than 4096 characters', key)
      END AS problem
    FROM jsonb_each(headers) ORDER BY problem NULLS LAST LIMIT 1) END
$$;

-- What is wrong with the patterns of an endpoint, in words; null if nothing.
CREATE FUNCTION outbox.event_types_problem(event_types text[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN coalesce(cardinality(event_types), 0) = 0 THEN 'there is none; use {*} for all events'
    WHEN cardinality(event_types) > 1000 THEN 'there are more than 1000'
    ELSE (SELECT format('%s is neither a type (order.created), a prefix (order.*) nor *', coalesce(to_json(t)::text, 'null'))
          FROM unnest(event_types) t
          WHERE t IS NULL OR t !~ '^([A-Za-z0-9_][A-Za-z0-9_.:/-]{0,254}|[A-Za-z0-9_][A-Za-z0-9_:/-]*(\.[A-Za-z0-9_:/-]+)*\.\*|\*)$'
          LIMIT 1)
  END
$$;

-- The patterns that match a type: order.item.added -> {*, order.*, order.item.*, order.item.added}. Types that begin with
-- `martlet.` are Martlet's own, about endpoints and deliveries: only patterns that begin so, too, match them. An endpoint for
-- `*` must not be told that it failed, fail at that, and be told again.
-- In PL/pgSQL, which keeps its plan: a function in SQL would be parsed and planned again in each cut, a third of the time
-- of a cut of one event.
CREATE FUNCTION outbox.patterns(type text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CASE WHEN type LIKE 'martlet.%' THEN ARRAY[type] ELSE ARRAY['*', type] END || ARRAY(
    SELECT array_to_string(p.parts[1:n], '.') || '.*'
    FROM (SELECT string_to_array(type, '.') AS parts) p, generate_series(1, cardinality(p.parts) - 1) n);
END $$;

-- What a filter sees of an event. Plain SQL without SET, so that it is inlined.
CREATE FUNCTION outbox.filter_document(type text, tenant text, key text, payload jsonb, metadata jsonb) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT pg_catalog.jsonb_build_object('type', type, 'tenant', tenant, 'key', key, 'payload', payload, 'metadata', metadata)
$$;

-- A filter with its string literals and names emptied: what is left is its grammar.
CREATE FUNCTION outbox.filter_skeleton(filter jsonpath) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT regexp_replace(filter::text, '"(?:[^"\\]|\\.)*"', '""', 'g')
$$;

-- Whether a filter somewhere compares two things of which neither is a literal.
CREATE FUNCTION outbox.compares_paths(filter jsonpath) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT coalesce(bool_or(s.parts[n] !~ '(^|[ (])(""|-?[0-9][0-9.eE+-]*|true|false|null)$'
                          AND s.parts[n + 1] !~ '^(""|-?[0-9][0-9.eE+-]*|true|false|null)($|[ )]|\.datetime\()'), false)
  FROM (SELECT regexp_split_to_array(outbox.filter_skeleton(filter), ' (?:==|!=|<=|>=|<|>) ') AS parts) s,
       generate_series(1, cardinality(s.parts) - 1) n
$$;

-- Whether a document is too large for a filter. PostgreSQL compares two paths item by item in a loop that no timeout ends:
-- with two arrays of 100,000 elements for minutes. 64 KiB have no arrays as long as that.
CREATE FUNCTION outbox.too_large_to_compare(filter jsonpath, document jsonb) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN pg_column_size(document) > 65536 AND outbox.compares_paths(filter);
END $$;

-- Whether an event matches a filter: the first item that the path gives decides, and there must be one, neither `false` nor
-- `null`. A predicate ($.payload.amount > 100) and a path that selects ($.payload ? (@.amount > 100)) thus both do what they
-- say. A filter that fails does not match. Times without a zone count as UTC.
-- outbox.judge is the same for many events and filters, and knows what failed.
CREATE FUNCTION outbox.matches(filter jsonpath, document jsonb) RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
BEGIN
  RETURN filter IS NULL OR (NOT outbox.too_large_to_compare(filter, document)
    AND coalesce(jsonb_path_query_first_tz(document, filter, '{}', true) NOT IN ('false', 'null'), false));
EXCEPTION WHEN OTHERS THEN
  RETURN false;
END $$;

-- What is wrong with a filter, in words; null if nothing: what could never work, and what could take a cut's time, which
-- is everybody's. Of a regular expression that is what PostgreSQL's engine answers in more than linear time (back
-- references, look-around) or with a machine too large: `weight` is about its size once bounds are written out.
-- outbox.judge is the second line, for what takes long all the same.
CREATE FUNCTION outbox.filter_problem(filter jsonpath) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
  WITH token AS (  -- string literals, each with what makes it a regular expression
    SELECT t[1] IS NOT NULL AS is_regex, ('"' || t[2] || '"')::jsonb #>> '{}' AS literal, coalesce(t[3], '') AS flags
    FROM regexp_matches(filter::text, '(like_regex )?"((?:[^"\\]|\\.)*)"(?: flag "([a-z]*)")?', 'g') t
  ), regex AS (
    SELECT t.literal, length(t.literal) + (SELECT coalesce(sum(greatest(b[1]::numeric, nullif(b[2], '')::numeric)), 0)
        FROM regexp_matches(t.literal, '\{([0-9]+)(?:,([0-9]*))?\}', 'g') b) AS size,
      (SELECT coalesce(exp(sum(ln(greatest(b[1]::numeric, nullif(b[2], '')::numeric, 1)))), 1)
        FROM regexp_matches(t.literal, '\)\{([0-9]+)(?:,([0-9]*))?\}', 'g') b) AS repeats
    FROM token t WHERE t.is_regex AND t.flags !~ 'q'
  )
  SELECT CASE
    WHEN length(filter::text) > 4096 THEN 'it is longer than 4096 characters'
    WHEN s.path ~ '\$""' THEN 'it has a variable ($name), and there is nothing to give it a value'
    WHEN s.path ~ '\*\*.*\*\*' THEN 'it searches all levels (**) more than once, which may take too long'
    ELSE (
      SELECT CASE
          WHEN r.literal ~ '\\[1-9]' THEN format('the regular expression %s has a back reference, which may take too long', to_json(r.literal))
          WHEN r.literal ~ '\(\?<?[=!]' THEN format('the regular expression %s looks around (?=), which may take too long', to_json(r.literal))
          WHEN r.size * r.repeats > 1000 THEN format('the regular expression %s is too large; with its repetitions {n} written out it may have about 1000 characters', to_json(left(r.literal, 100)))
        END AS problem
      FROM regex r ORDER BY problem NULLS LAST LIMIT 1)
  END
  FROM (SELECT outbox.filter_skeleton(filter) AS path) s
$$;

-- For what people do by hand and what holds, until their transaction ends, something that dispatchers need (an endpoint's row
-- or its order's lock): who goes away and leaves the transaction open is thrown out after half a minute, and the others go on.
CREATE FUNCTION outbox.do_not_linger() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE milliseconds CONSTANT int := (SELECT s.setting::int FROM pg_settings s WHERE s.name = 'idle_in_transaction_session_timeout');
BEGIN
  IF milliseconds = 0 OR milliseconds > 30000 THEN
    PERFORM set_config('idle_in_transaction_session_timeout', '30s', true);
  END IF;
END $$;

CREATE FUNCTION outbox.check_endpoint() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE problem text;
BEGIN
  problem := 'the URL is not usable: ' || outbox.url_problem(NEW.url);
  problem := coalesce(problem, 'the headers are not usable: ' || outbox.headers_problem(NEW.headers));
  problem := coalesce(problem, 'the event types are not usable: ' || outbox.event_types_problem(NEW.event_types));
  IF TG_OP = 'INSERT' OR NEW.filter::text IS DISTINCT FROM OLD.filter::text THEN
    problem := coalesce(problem, 'the filter is not usable: ' || outbox.filter_problem(NEW.filter));
  END IF;
  IF problem IS NOT NULL THEN
    RAISE EXCEPTION '%', problem USING ERRCODE = 'check_violation';
  END IF;
  IF TG_OP = 'UPDATE' THEN
    PERFORM outbox.do_not_linger();
    NEW.version := nextval('outbox.endpoint_version');
    NEW.updated_at := clock_timestamp();
    IF NEW.state <> 'disabled' THEN
      NEW.disabled_at := NULL;
      NEW.disabled_because := NULL;
    END IF;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER check_endpoint BEFORE INSERT OR UPDATE ON outbox.endpoint
  FOR EACH ROW EXECUTE FUNCTION outbox.check_endpoint();

-- Keeps outbox.subscription, and what waits, in step with the settings. A disabled endpoint is not subscribed: it gets no
-- new deliveries, and keeps what it has.
-- SECURITY DEFINER: whoever may change an endpoint need not be able to write subscriptions past this rule, nor to create
-- the sequence that is its rate limit's bucket.
CREATE FUNCTION outbox.subscribe_endpoint() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'INSERT' OR (NEW.tenant, NEW.event_types, NEW.state = 'disabled', NEW.filter::text)
      IS DISTINCT FROM (OLD.tenant, OLD.event_types, OLD.state = 'disabled', OLD.filter::text) THEN
    WITH ended AS (DELETE FROM outbox.subscription s WHERE s.endpoint_id = NEW.id RETURNING s.*)
    INSERT INTO outbox.past_subscription (tenant, pattern, endpoint_id, since, until, filter)
    SELECT e.tenant, e.pattern, e.endpoint_id, e.since, p.done, e.filter
    FROM ended e, (SELECT p.done FROM outbox.position p ORDER BY p.id DESC LIMIT 1) p
    WHERE e.since < pg_snapshot_xmax(p.done);
    IF NEW.state <> 'disabled' THEN
      INSERT INTO outbox.subscription (tenant, pattern, endpoint_id, filter)
      SELECT DISTINCT ON (t) NEW.tenant, t, NEW.id, NEW.filter FROM unnest(NEW.event_types) t;
    END IF;
  END IF;
  IF TG_OP = 'UPDATE' AND NEW.filter::text IS DISTINCT FROM OLD.filter::text THEN
    DELETE FROM outbox.filter_failure f WHERE f.endpoint_id = NEW.id;
  END IF;
  IF NEW.rate_limit IS NOT NULL AND to_regclass('outbox.rate_' || NEW.id) IS NULL THEN
    EXECUTE format('CREATE SEQUENCE outbox.rate_%s MINVALUE 0', NEW.id);
    -- Roles are the cluster's: where a dump was restored without them, whoever owns the schema does all.
    IF to_regrole('outbox_dispatcher') IS NOT NULL AND to_regrole('outbox_operator') IS NOT NULL THEN
      EXECUTE format('GRANT SELECT, UPDATE ON SEQUENCE outbox.rate_%s TO outbox_dispatcher', NEW.id);
      EXECUTE format('GRANT SELECT ON SEQUENCE outbox.rate_%s TO outbox_operator', NEW.id);
    END IF;
  END IF;
  IF TG_OP = 'UPDATE' AND OLD.state = 'disabled' AND NEW.state <> 'disabled' THEN
    -- Whoever enables it again gives it time: `disable_after` begins anew.
    UPDATE outbox.endpoint_health h SET failing_since = NULL WHERE h.endpoint_id = NEW.id AND h.failing_since IS NOT NULL;
  END IF;
  IF TG_OP = 'UPDATE' AND (NEW.ordered, NEW.on_dead_letter) IS DISTINCT FROM (OLD.ordered, OLD.on_dead_letter) THEN
    PERFORM outbox.reorder(NEW.id, NEW.ordered, NEW.on_dead_letter);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER subscribe_endpoint AFTER INSERT OR UPDATE ON outbox.endpoint
  FOR EACH ROW EXECUTE FUNCTION outbox.subscribe_endpoint();

-- Disables an endpoint whose filter takes too long, if nobody holds it just now; otherwise the next cut does. `since`: when
-- the first event was created that it may have missed, for a replay from there. What was cut while the filter was in force
-- can no longer be proved by evaluating it, so the reconciler forgets it.
-- SECURITY DEFINER: the dispatcher calls it, and must not otherwise write past_subscription.
CREATE FUNCTION outbox.disable_for_filter(endpoint bigint, because text, since timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  held int;
BEGIN
  PERFORM FROM outbox.endpoint e WHERE e.id = disable_for_filter.endpoint FOR NO KEY UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  -- A reconciler that is stamping them holds these for as long as it works.
  PERFORM FROM outbox.subscription s WHERE s.endpoint_id = disable_for_filter.endpoint FOR UPDATE SKIP LOCKED;
  GET DIAGNOSTICS held = ROW_COUNT;
  IF held < (SELECT count(*) FROM outbox.subscription s WHERE s.endpoint_id = disable_for_filter.endpoint) THEN
    RETURN;
  END IF;
  UPDATE outbox.endpoint e SET state = 'disabled', disabled_at = since, disabled_because = because
  WHERE e.id = disable_for_filter.endpoint AND e.state <> 'disabled';
  PERFORM outbox.announce('martlet.endpoint.disabled', ARRAY[disable_for_filter.endpoint]);
  DELETE FROM outbox.past_subscription s WHERE s.endpoint_id = disable_for_filter.endpoint AND s.filter IS NOT NULL;
END $$;

-- What waits for an endpoint that is deleted becomes a dead letter: nothing is left that could never be sent, and nothing
-- that could wait for a dead letter. Its bucket goes when no claim is using it.
-- SECURITY DEFINER: whoever may delete an endpoint need not be able to write dead letters, nor to drop a sequence.
CREATE FUNCTION outbox.forget_endpoint() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO outbox.dead_letter (event_id, endpoint_id, url, type, tenant, key, payload, metadata, created_at, attempts,
    reason, last_status, last_error)
  SELECT d.event_id, d.endpoint_id, OLD.url, e.type, e.tenant, e.key, e.payload, e.metadata, e.created_at, d.attempts,
    'discarded', d.last_status, d.last_error
  FROM outbox.delivery d JOIN outbox.event e ON e.id = d.event_id WHERE d.endpoint_id = OLD.id
  ON CONFLICT (event_id, endpoint_id) DO NOTHING;
  DELETE FROM outbox.delivery d WHERE d.endpoint_id = OLD.id;
  UPDATE outbox.dead_letter l SET seq = NULL WHERE l.endpoint_id = OLD.id AND l.seq IS NOT NULL;
  IF to_regclass('outbox.rate_' || OLD.id) IS NOT NULL THEN
    PERFORM pg_advisory_xact_lock(1296126552, outbox.lock_number(OLD.id));
    EXECUTE format('DROP SEQUENCE IF EXISTS outbox.rate_%s', OLD.id);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER forget_endpoint AFTER DELETE ON outbox.endpoint
  FOR EACH ROW EXECUTE FUNCTION outbox.forget_endpoint();

-- From now on every transaction that begins will be cut with these subscriptions in sight. What somebody is just changing
-- is left for the next time, so that nobody waits.
-- Index: subscription_unstamped.
CREATE FUNCTION outbox.stamp_subscriptions() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
  UPDATE outbox.subscription s SET since = pg_snapshot_xmax(pg_current_snapshot())
  FROM (SELECT u.tenant, u.pattern, u.endpoint_id FROM outbox.subscription u WHERE u.since IS NULL FOR UPDATE SKIP LOCKED) mine
  WHERE s.tenant = mine.tenant AND s.pattern = mine.pattern AND s.endpoint_id = mine.endpoint_id
$$;

-- A new secret in the form of Standard Webhooks: whsec_ (HMAC) or whsk_ (ed25519, the seed of a key pair) and 32 bytes in
-- base64.
CREATE FUNCTION outbox.new_secret(signature text DEFAULT 'hmac') RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF signature NOT IN ('hmac', 'ed25519') OR signature IS NULL THEN
    RAISE EXCEPTION 'there is no such signature; there are hmac and ed25519' USING ERRCODE = 'check_violation';
  END IF;
  RETURN CASE signature WHEN 'hmac' THEN 'whsec_' ELSE 'whsk_' END
    || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64');
END $$;

-- The id of the key under which a value is sealed (SecretSealing.swift): sealed:v1:<id>:<base64>. Null: it is in plain.
CREATE FUNCTION outbox.sealed_by(value text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS
$$ SELECT substring(value FROM '^sealed:v1:([0-9a-f]{8}):(?:[A-Za-z0-9+/]{4}){9,}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$') $$;

-- Refuses a secret that no dispatcher could sign with. A sealed one cannot be looked into.
CREATE FUNCTION outbox.require_usable_secret(secret text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE bytes int;
BEGIN
  IF secret LIKE 'sealed:%' AND octet_length(secret) <= 1024 AND outbox.sealed_by(secret) IS NOT NULL THEN
    RETURN;
  ELSIF secret !~ '^whs(ec|k)_([A-Za-z0-9+/]{4})+([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$' THEN
    RAISE EXCEPTION 'the secret is not usable: it must be whsec_ (HMAC) or whsk_ (ed25519) and base64'
      USING ERRCODE = 'check_violation', HINT = 'Leave it out and one is made.';
  END IF;
  bytes := length(decode(substr(secret, position('_' IN secret) + 1), 'base64'));
  IF secret LIKE 'whsec%' AND bytes NOT BETWEEN 16 AND 64 OR secret LIKE 'whsk%' AND bytes NOT IN (32, 64) THEN
    RAISE EXCEPTION 'the secret is not usable: it decodes to % bytes; whsec_ takes 16 to 64, whsk_ 32 or 64', bytes
      USING ERRCODE = 'check_violation', HINT = 'Leave it out and one is made.';
  END IF;
END $$;

-- Notes what kind of key a new secret is, and its public half where that can be seen: whsk_ with 64 bytes is the seed and
-- the public key. Of a sealed one the caller says both.
CREATE FUNCTION outbox.check_secret() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM outbox.require_usable_secret(NEW.secret);
  IF NEW.secret LIKE 'whsec%' THEN
    NEW.kind := 'hmac';
    NEW.public_key := NULL;
  ELSIF NEW.secret LIKE 'whsk%' THEN
    NEW.kind := 'ed25519';
    IF length(decode(substr(NEW.secret, 6), 'base64')) = 64 THEN
      NEW.public_key := 'whpk_' || encode(substr(decode(substr(NEW.secret, 6), 'base64'), 33), 'base64');
    END IF;
  ELSE
    NEW.kind := CASE WHEN NEW.public_key IS NULL THEN coalesce(NEW.kind, 'hmac') ELSE 'ed25519' END;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER check_secret BEFORE INSERT OR UPDATE OF secret ON outbox.endpoint_secret
  FOR EACH ROW EXECUTE FUNCTION outbox.check_secret();

-- UPDATE outbox.endpoint_secret SET expires_at = now() ends a secret that has leaked: dispatchers hear of it at once.
CREATE FUNCTION outbox.tell_of_expiry() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  UPDATE outbox.endpoint e SET version = e.version WHERE e.id = NEW.endpoint_id;
  RETURN NULL;
END $$;
CREATE TRIGGER tell_of_expiry AFTER UPDATE OF expires_at ON outbox.endpoint_secret
  FOR EACH ROW EXECUTE FUNCTION outbox.tell_of_expiry();

-- Adds an endpoint and returns its id. Without `secret` one is made, of the kind that `signature` says; outbox.rotate_secret
-- shows a new one. `signature` => 'later' makes none: nothing is sent until outbox.rotate_secret has given it one, which is
-- how `martlet endpoint add` sees to it that a secret is sealed before it is stored.
CREATE FUNCTION outbox.add_endpoint(
  url text, event_types text[] DEFAULT '{*}', tenant text DEFAULT '', secret text DEFAULT NULL,
  ordered boolean DEFAULT false, format text DEFAULT 'standard', headers jsonb DEFAULT '{}',
  timeout interval DEFAULT '15 s', max_attempts int DEFAULT 15, first_delay interval DEFAULT '5 s',
  multiplier float8 DEFAULT 3, longest_delay interval DEFAULT '12 h', max_age interval DEFAULT '7 days',
  max_in_flight int DEFAULT 32, failure_threshold int DEFAULT 10, jitter float8 DEFAULT 0.1, filter jsonpath DEFAULT NULL,
  retry_delays interval[] DEFAULT NULL, rate_limit float8 DEFAULT NULL, failure_rate float8 DEFAULT 0.5,
  failure_window interval DEFAULT '1 min', disable_after interval DEFAULT '5 days', on_dead_letter text DEFAULT 'skip',
  transform text DEFAULT NULL, signature text DEFAULT 'hmac'
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  new_id bigint;
  first_secret text := secret;
BEGIN
  IF secret IS NULL AND signature IS DISTINCT FROM 'later' THEN
    first_secret := outbox.new_secret(signature);
  END IF;
  PERFORM outbox.require_usable_secret(first_secret);
  INSERT INTO outbox.endpoint (url, event_types, tenant, ordered, format, headers, timeout, max_attempts, first_delay,
      multiplier, longest_delay, max_age, max_in_flight, failure_threshold, jitter, filter, retry_delays, rate_limit,
      failure_rate, failure_window, disable_after, on_dead_letter, transform)
  VALUES (url, event_types, tenant, ordered, format, headers, timeout, max_attempts, first_delay,
      multiplier, longest_delay, max_age, max_in_flight, failure_threshold, jitter, filter, retry_delays, rate_limit,
      failure_rate, failure_window, disable_after, on_dead_letter, transform)
  RETURNING id INTO new_id;
  IF first_secret IS NOT NULL THEN
    INSERT INTO outbox.endpoint_secret (endpoint_id, secret) VALUES (new_id, first_secret);
  END IF;
  RETURN new_id;
END $$;

CREATE FUNCTION outbox.set_endpoint_state(endpoint bigint, new_state text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  -- Whoever calls this has decided: a mark that Martlet did it by itself goes.
  UPDATE outbox.endpoint e SET state = new_state, disabled_at = NULL, disabled_because = NULL
  WHERE e.id = set_endpoint_state.endpoint;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no endpoint %', endpoint
      USING ERRCODE = 'no_data_found', HINT = 'SELECT id, url FROM outbox.endpoint';
  END IF;
END $$;

-- Paused: new events are parked, nothing is sent. Disabled: parked deliveries are kept, new events pass by.
CREATE FUNCTION outbox.pause(endpoint bigint) RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS
$$ SELECT outbox.set_endpoint_state(endpoint, 'paused') $$;
CREATE FUNCTION outbox.disable(endpoint bigint) RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS
$$ SELECT outbox.set_endpoint_state(endpoint, 'disabled') $$;
-- Enabled again, with a closed circuit: what waits is sent at once. No event tells of it, nor of the two above: those who
-- are told by martlet.endpoint.* are told what Martlet did by itself.
CREATE FUNCTION outbox.resume(endpoint bigint) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM outbox.set_endpoint_state(endpoint, 'enabled');
  UPDATE outbox.endpoint_health h SET state = 'closed', consecutive_failures = 0, opened_at = NULL, probe_at = NULL,
    failing_since = NULL, window_started_at = NULL, window_failed = 0, window_succeeded = 0
  WHERE h.endpoint_id = resume.endpoint;
END $$;

-- Makes a new secret and returns it, once, for the receiver. The old ones sign beside it until `overlap` has passed.
-- `signature`: hmac, ed25519, or null for the same as before. The private half of an ed25519 key is of no use to a receiver,
-- so null is returned; the public half is in outbox.endpoint_key.
-- `public_key` belongs to a `secret` that is sealed.
CREATE FUNCTION outbox.rotate_secret(
  endpoint bigint, overlap interval DEFAULT '24 hours', secret text DEFAULT NULL, signature text DEFAULT NULL,
  public_key text DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  fresh text := secret;
BEGIN
  UPDATE outbox.endpoint e SET version = e.version WHERE e.id = rotate_secret.endpoint;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no endpoint %', endpoint USING ERRCODE = 'no_data_found';
  END IF;
  IF overlap IS NULL THEN
    RAISE EXCEPTION 'the overlap must not be null: the old secrets would never end' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  -- Each of them signs every request.
  IF overlap > '0' AND (SELECT count(*) FROM outbox.endpoint_secret s WHERE s.endpoint_id = rotate_secret.endpoint
                        AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())) >= 10 THEN
    RAISE EXCEPTION 'endpoint % has 10 valid secrets', endpoint USING ERRCODE = 'program_limit_exceeded',
      HINT = format('UPDATE outbox.endpoint_secret SET expires_at = now() WHERE endpoint_id = %s AND id = …; ends one.', endpoint);
  END IF;
  IF fresh IS NULL THEN
    fresh := outbox.new_secret(coalesce(rotate_secret.signature, (
      SELECT s.kind FROM outbox.endpoint_secret s WHERE s.endpoint_id = rotate_secret.endpoint ORDER BY s.id DESC LIMIT 1), 'hmac'));
  END IF;
  PERFORM outbox.require_usable_secret(fresh);
  UPDATE outbox.endpoint_secret s SET expires_at = clock_timestamp() + overlap
  WHERE s.endpoint_id = rotate_secret.endpoint AND s.expires_at IS NULL;
  INSERT INTO outbox.endpoint_secret (endpoint_id, secret, public_key) VALUES (rotate_secret.endpoint, fresh, rotate_secret.public_key);
  RETURN CASE WHEN fresh LIKE 'whsec%' THEN fresh END;
END $$;
COMMIT;
