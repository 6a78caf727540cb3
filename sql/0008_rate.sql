-- Martlet 0008: rate limits.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(8, 'rate');

-- Rate limits: a token bucket per limited endpoint, shared by all dispatchers. A claim takes a token for each delivery, and
-- at most the tokens there are. They come in at the endpoint's `rate_limit` a second; a full bucket holds one, and those of
-- a quarter of a second: enough that nothing is lost between two claims, and little enough that of any ten seconds no
-- more go out than 5 % above the limit (or one delivery, below 4 a second).
--
-- All that is kept is one number, the time in microseconds since 1970 at which the bucket was last empty, or would have
-- been. The number of tokens follows from the limit of the moment, so a new limit counts at once. The number is the value
-- of a sequence, outbox.rate_<endpoint>: setting it writes in place, where updating a row with every claim would leave
-- a dead version each time for as long as somebody's transaction stays open. What a transaction that rolls back has
-- taken stays taken: too few go out then, never too many.
-- outbox.spend writes it under an advisory lock that is only tried: who does not get it comes again in a moment.

CREATE FUNCTION outbox.bucket_tokens(rate float8, empty_at bigint, now_at bigint) RETURNS float8
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN least(1 + rate / 4, greatest(now_at - empty_at, 0) * rate / 1000000);
END $$;

-- When the bucket was empty, after `taken` have been taken out of it. Rounded up: nobody gets more than there was. A clock
-- that was set back has nobody wait for it.
CREATE FUNCTION outbox.bucket_after(rate float8, empty_at bigint, now_at bigint, taken int) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN greatest(least(empty_at, now_at), now_at - ceil(1000000.0 / rate)::bigint - 250000) + ceil(taken * 1000000.0 / rate)::bigint;
END $$;

-- Milliseconds until there are so many tokens, or the bucket is full.
CREATE FUNCTION outbox.bucket_wait_ms(rate float8, empty_at bigint, now_at bigint, wanted float8) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN ceil(greatest(least(wanted, 1 + rate / 4) - outbox.bucket_tokens(rate, empty_at, now_at), 0) * 1000 / rate);
END $$;

CREATE FUNCTION outbox.now_us() RETURNS bigint LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS
$$ SELECT (date_part('epoch', clock_timestamp()) * 1000000)::bigint $$;

-- When an endpoint's bucket was empty; one never used is full. Null if it has none.
CREATE FUNCTION outbox.bucket(endpoint bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE at CONSTANT regclass := to_regclass('outbox.rate_' || endpoint);
BEGIN
  RETURN CASE WHEN at IS NOT NULL THEN coalesce(pg_sequence_last_value(at), 0) END;
END $$;

-- Takes tokens out of an endpoint's bucket, of which the caller holds the lock and has seen that there are so many. Returns
-- in how many milliseconds it is worth while to come again: when there is one token, or those of a twentieth of a second,
-- or as many as are `wanted`. Null if fewer were taken than were `allowed`: then nothing more is due.
CREATE FUNCTION outbox.spend(endpoint bigint, taken int, allowed int, wanted int) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  rate CONSTANT float8 := (SELECT e.rate_limit FROM outbox.endpoint e WHERE e.id = spend.endpoint);
  empty_at bigint := outbox.bucket(endpoint);
  now_at CONSTANT bigint := outbox.now_us();
BEGIN
  IF rate IS NULL THEN
    RETURN NULL;
  ELSIF empty_at IS NULL THEN
    RETURN 1000;
  END IF;
  IF taken > 0 THEN
    empty_at := setval('outbox.rate_' || endpoint, outbox.bucket_after(rate, empty_at, now_at, taken));
  END IF;
  RETURN CASE WHEN taken >= allowed THEN
    outbox.bucket_wait_ms(rate, empty_at, now_at, greatest(1, least(wanted, rate / 20))) END;
END $$;
COMMIT;
