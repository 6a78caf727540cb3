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
    WHEN url ~* '^https?://[^/?]*@' THEN 'it contains credentials (user@); use a header instead'
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
        WHEN lower(key) ~ '^(webhook-.*|proxy-.*|host|content-length|content-type|transfer-encoding|connection|expect|te|trailer|upgrade|keep-alive)$'
          THEN format('%s is set by Martlet and cannot be overridden', key)
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

-- The patterns that match a type: order.item.added -> {*, order.*, order.item.*, order.item.added}. Martlet's own events
-- come to those who name them only: martlet.endpoint.failing -> {martlet.*, martlet.endpoint.*, martlet.endpoint.failing}.
-- In PL/pgSQL, which keeps its plan: a function in SQL would be parsed and planned again in each cut, a third of the time
-- of a cut of one event.
CREATE FUNCTION outbox.patterns(type text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN CASE WHEN type LIKE 'martlet.%' THEN ARRAY[type] ELSE ARRAY['*', type] END || ARRAY(
    SELECT array_to_string(p.parts[1:n], '.') || '.*'
    FROM (SELECT string_to_array(type, '.') AS parts) p, generate_series(1, cardinality(p.parts) - 1) n);
END $$;

CREATE FUNCTION outbox.check_endpoint() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE problem text;
BEGIN
  problem := 'the URL is not usable: ' || outbox.url_problem(NEW.url);
  problem := coalesce(problem, 'the headers are not usable: ' || outbox.headers_problem(NEW.headers));
  problem := coalesce(problem, 'the event types are not usable: ' || outbox.event_types_problem(NEW.event_types));
  IF problem IS NOT NULL THEN
    RAISE EXCEPTION '%', problem USING ERRCODE = 'check_violation';
  END IF;
  IF TG_OP = 'UPDATE' THEN
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
  IF TG_OP = 'INSERT' OR (NEW.tenant, NEW.event_types, NEW.state = 'disabled')
      IS DISTINCT FROM (OLD.tenant, OLD.event_types, OLD.state = 'disabled') THEN
    WITH ended AS (DELETE FROM outbox.subscription s WHERE s.endpoint_id = NEW.id RETURNING s.*)
    INSERT INTO outbox.past_subscription (tenant, pattern, endpoint_id, since, until)
    SELECT e.tenant, e.pattern, e.endpoint_id, e.since, p.done
    FROM ended e, (SELECT p.done FROM outbox.position p ORDER BY p.id DESC LIMIT 1) p
    WHERE e.since < pg_snapshot_xmax(p.done);
    IF NEW.state <> 'disabled' THEN
      INSERT INTO outbox.subscription (tenant, pattern, endpoint_id)
      SELECT DISTINCT NEW.tenant, t, NEW.id FROM unnest(NEW.event_types) t;
    END IF;
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

-- A new secret in the form of Standard Webhooks: whsec_ and 32 bytes in base64.
CREATE FUNCTION outbox.new_secret() RETURNS text
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
  SELECT 'whsec_' || encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'base64')
$$;

-- Refuses a secret that no dispatcher could sign with.
CREATE FUNCTION outbox.require_usable_secret(secret text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE bytes int;
BEGIN
  IF secret !~ '^whs(ec|k)_([A-Za-z0-9+/]{4})+([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$' THEN
    RAISE EXCEPTION 'the secret is not usable: it must be whsec_ (HMAC) or whsk_ (ed25519) and base64'
      USING ERRCODE = 'check_violation', HINT = 'Leave it out and one is made.';
  END IF;
  bytes := length(decode(substr(secret, position('_' IN secret) + 1), 'base64'));
  IF secret LIKE 'whsec%' AND bytes NOT BETWEEN 16 AND 64 OR secret LIKE 'whsk%' AND bytes NOT IN (32, 64) THEN
    RAISE EXCEPTION 'the secret is not usable: it decodes to % bytes; whsec_ takes 16 to 64, whsk_ 32 or 64', bytes
      USING ERRCODE = 'check_violation', HINT = 'Leave it out and one is made.';
  END IF;
END $$;

-- Adds an endpoint and returns its id. Without `secret` one is made; outbox.rotate_secret shows a new one.
CREATE FUNCTION outbox.add_endpoint(
  url text, event_types text[] DEFAULT '{*}', tenant text DEFAULT '', secret text DEFAULT NULL,
  ordered boolean DEFAULT false, format text DEFAULT 'standard', headers jsonb DEFAULT '{}',
  timeout interval DEFAULT '15 s', max_attempts int DEFAULT 15, first_delay interval DEFAULT '5 s',
  multiplier float8 DEFAULT 3, longest_delay interval DEFAULT '12 h', max_age interval DEFAULT '7 days',
  max_in_flight int DEFAULT 32, failure_threshold int DEFAULT 10, jitter float8 DEFAULT 0.1, filter jsonpath DEFAULT NULL,
  retry_delays interval[] DEFAULT NULL, rate_limit float8 DEFAULT NULL, failure_rate float8 DEFAULT 0.5,
  failure_window interval DEFAULT '1 min', disable_after interval DEFAULT '5 days', on_dead_letter text DEFAULT 'skip',
  transform text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE new_id bigint;
BEGIN
  PERFORM outbox.require_usable_secret(secret);
  INSERT INTO outbox.endpoint (url, event_types, tenant, ordered, format, headers, timeout, max_attempts, first_delay,
      multiplier, longest_delay, max_age, max_in_flight, failure_threshold, jitter, filter, retry_delays, rate_limit,
      failure_rate, failure_window, disable_after, on_dead_letter, transform)
  VALUES (url, event_types, tenant, ordered, format, headers, timeout, max_attempts, first_delay,
      multiplier, longest_delay, max_age, max_in_flight, failure_threshold, jitter, filter, retry_delays, rate_limit,
      failure_rate, failure_window, disable_after, on_dead_letter, transform)
  RETURNING id INTO new_id;
  INSERT INTO outbox.endpoint_secret (endpoint_id, secret) VALUES (new_id, coalesce(secret, outbox.new_secret()));
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

-- Makes a new secret and returns it, once. The old ones sign beside it until `overlap` has passed.
CREATE FUNCTION outbox.rotate_secret(endpoint bigint, overlap interval DEFAULT '24 hours', secret text DEFAULT NULL)
RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE fresh text := coalesce(secret, outbox.new_secret());
BEGIN
  PERFORM outbox.require_usable_secret(fresh);
  UPDATE outbox.endpoint e SET version = e.version WHERE e.id = rotate_secret.endpoint;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no endpoint %', endpoint USING ERRCODE = 'no_data_found';
  END IF;
  UPDATE outbox.endpoint_secret s SET expires_at = clock_timestamp() + overlap
  WHERE s.endpoint_id = rotate_secret.endpoint AND s.expires_at IS NULL;
  INSERT INTO outbox.endpoint_secret (endpoint_id, secret) VALUES (rotate_secret.endpoint, fresh);
  RETURN fresh;
END $$;
COMMIT;
