-- Martlet 0001: the tables.
--
-- Every numbered file is one transaction and one version. Apply them in order, with `martlet migrate` or with
-- `psql -v ON_ERROR_STOP=1 -f FILE`; the result is the same. A file that was applied already refuses to run again.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);

DO $$
BEGIN
  IF current_setting('server_version_num')::int < 130000 THEN
    RAISE EXCEPTION 'Martlet needs PostgreSQL 13 or later; this server is %', current_setting('server_version');
  END IF;
  IF current_setting('server_encoding') <> 'UTF8' THEN
    RAISE EXCEPTION 'Martlet needs a database with encoding UTF8; this one has %', current_setting('server_encoding')
      USING HINT = 'CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0';
  END IF;
  IF to_regnamespace('outbox') IS NOT NULL AND to_regclass('outbox.migration') IS NULL THEN
    RAISE EXCEPTION 'schema "outbox" exists already and is not Martlet''s'
      USING HINT = 'Rename it, or use another database.';
  END IF;
  IF to_regclass('outbox.migration') IS NOT NULL THEN
    RAISE EXCEPTION 'migration 1 has been applied already' USING ERRCODE = 'duplicate_object';
  END IF;
END $$;

CREATE SCHEMA outbox;

CREATE TABLE outbox.migration (
  version    int PRIMARY KEY,
  name       text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What every file calls first: refuse to run twice, refuse to run out of order, note the version.
CREATE FUNCTION outbox.begin_migration(this int, name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE newest int := (SELECT max(version) FROM outbox.migration);
BEGIN
  IF newest >= this THEN
    RAISE EXCEPTION 'migration % has been applied already (the schema is at %)', this, newest
      USING ERRCODE = 'duplicate_object';
  ELSIF newest < this - 1 THEN
    RAISE EXCEPTION 'migration % needs migration % first (the schema is at %)', this, this - 1, newest;
  END IF;
  INSERT INTO outbox.migration (version, name) VALUES (this, begin_migration.name);
END $$;

INSERT INTO outbox.migration (version, name) VALUES (1, 'tables');

-- Named limits and periods. Change a row; it takes effect with the next maintenance or reconciler run.
CREATE TABLE outbox.setting (
  name  text PRIMARY KEY,
  value text NOT NULL,
  about text NOT NULL,
  -- Bounded, so that no arithmetic on dates overflows in maintenance, which would then do nothing at all.
  CONSTRAINT setting_is_a_whole_number_or_a_period_of_at_most_1000_years CHECK (CASE name
    WHEN 'partitions_ahead' THEN value::int BETWEEN 0 AND 1000
    WHEN 'position_rows' THEN value::int >= 0
    ELSE value::interval BETWEEN '0 s' AND '1000 years' END)
);
INSERT INTO outbox.setting VALUES
  ('event_retention',       '7 days',  'events older than this are dropped, a day at a time, unless something still waits for them'),
  ('attempt_retention',     '7 days',  'history older than this is dropped, a day at a time'),
  ('dead_letter_retention', '90 days', 'dead letters older than this are deleted'),
  ('proof_retention',       '90 days', 'what has been proved of events older than this is forgotten, unless something still waits'),
  ('secret_retention',      '7 days',  'signing secrets are deleted so long after they expired, but for the newest of each endpoint'),
  ('partitions_ahead',      '3',       'days for which partitions exist in advance'),
  ('position_rows',         '1000',    'newest rows kept in outbox.position'),
  ('lock_timeout',          '500 ms',  'how long maintenance waits for a table lock before it tries again on its next run');

-- The cluster that transaction ids in this schema belong to. In a restored copy they mean nothing, so a dispatcher
-- compares before it starts (outbox.anchor_problem) and a copy sends nothing by itself.
CREATE TABLE outbox.anchor (
  only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  system_identifier bigint NOT NULL,
  database_oid      oid NOT NULL,
  anchored_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- UUID version 7 (RFC 9562): 48 bits of milliseconds, 12 bits of the fraction of that millisecond (so that rows of one
-- transaction sort in the order of their insertion), 62 random bits. Plain SQL without SET, so that it is inlined into
-- the insert; every name is therefore qualified, and every operator has the exact types it is called with.
CREATE FUNCTION outbox.uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
  SELECT (pg_catalog.substr(
            pg_catalog.overlay(
              pg_catalog.encode(
                pg_catalog.int8send(
                  (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())
                     OPERATOR(pg_catalog.*) 4096000::pg_catalog.float8)::pg_catalog.int8),
                'hex'),
              '7', 14, 0),
            2)
          OPERATOR(pg_catalog.||) pg_catalog.substr(pg_catalog.gen_random_uuid()::pg_catalog.text, 20))::pg_catalog.uuid
$$;

-- The lowest version 7 id of an instant: bounds of partitions, and of searches by time.
CREATE FUNCTION outbox.uuid_floor(instant timestamptz) RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT (lpad(to_hex((date_part('epoch', least(greatest(instant, 'epoch'), '9999-12-31 00:00Z')) * 1000)::bigint), 12, '0')
          || '00000000000000000000')::uuid
$$;

-- The second in a version 7 id, since 1970. Plain SQL without SET, so that it is inlined; every name is therefore qualified.
CREATE FUNCTION outbox.uuid_second(id uuid) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ('x' OPERATOR(pg_catalog.||) pg_catalog.encode(pg_catalog.substr(pg_catalog.uuid_send(id), 1, 6), 'hex'))
           ::pg_catalog.bit(48)::pg_catalog.int8 OPERATOR(pg_catalog./) 1000::pg_catalog.int8
$$;

-- The instant in a version 7 id, to the millisecond.
CREATE FUNCTION outbox.uuid_time(id uuid) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT to_timestamp(('x0000' || substr(replace(id::text, '-', ''), 1, 12))::bit(64)::bigint / 1000.0)
$$;

-- Whether the current role may publish events in Martlet's own name, of types that begin with `martlet.`: the owner of the
-- schema, dispatchers and operators. In PL/pgSQL, so that nothing of it is looked at for any other event.
CREATE FUNCTION outbox.may_speak_for_martlet() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN EXISTS (
    SELECT FROM pg_roles r
    WHERE (r.rolname IN ('outbox_dispatcher', 'outbox_operator')
           OR r.oid = (SELECT n.nspowner FROM pg_namespace n WHERE n.nspname = 'outbox'))
      AND pg_has_role(r.oid, 'USAGE'));
END $$;

-- The log. Append-only: nobody updates an event, and whole days are dropped. `tx` is what makes the cut exact.
CREATE TABLE outbox.event (
  id         uuid NOT NULL DEFAULT outbox.uuid_v7(),
  tx         xid8 NOT NULL DEFAULT pg_current_xact_id(),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  type       text NOT NULL,
  tenant     text NOT NULL DEFAULT '',
  key        text,
  payload    jsonb NOT NULL,
  metadata   jsonb NOT NULL DEFAULT '{}',
  not_before timestamptz,
  PRIMARY KEY (id),
  CONSTRAINT event_type_is_1_to_255_letters_digits_or_marks
    CHECK (type ~ '^[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,254}$'),
  -- A receiver may trust what it is told of its endpoint. A constraint rather than a trigger: it costs an insert a comparison,
  -- and COPY goes on writing many rows at once.
  CONSTRAINT event_type_martlet_is_reserved CHECK (type NOT LIKE 'martlet.%' OR outbox.may_speak_for_martlet()),
  CONSTRAINT event_tenant_is_at_most_255_bytes CHECK (octet_length(tenant) <= 255),
  CONSTRAINT event_key_is_1_to_1024_bytes CHECK (octet_length(key) BETWEEN 1 AND 1024),
  -- As text, which is what is sent: 1e131071 takes a few bytes as jsonb and 131,072 as text.
  CONSTRAINT event_payload_is_at_most_1_mib CHECK (octet_length(payload::text) <= 1048576),
  CONSTRAINT event_metadata_is_an_object_of_at_most_64_kib
    CHECK (jsonb_typeof(metadata) = 'object' AND octet_length(metadata::text) <= 65536),
  CONSTRAINT event_not_before_is_finite CHECK (isfinite(not_before))
) PARTITION BY RANGE (id);
CREATE TABLE outbox.event_default PARTITION OF outbox.event DEFAULT;
CREATE INDEX event_tx_id ON outbox.event (tx, id);

-- Where to deliver. `version` grows with every change, so that a dispatcher knows when what it remembers is stale.
CREATE SEQUENCE outbox.endpoint_version;
CREATE TABLE outbox.endpoint (
  id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  version           bigint NOT NULL DEFAULT nextval('outbox.endpoint_version'),
  tenant            text NOT NULL DEFAULT ''
    CONSTRAINT endpoint_tenant_is_at_most_255_bytes
    CHECK (octet_length(tenant) <= 255),
  url               text NOT NULL,
  event_types       text[] NOT NULL DEFAULT '{*}',
  filter            jsonpath,
  state             text NOT NULL DEFAULT 'enabled'
    CONSTRAINT endpoint_state_is_enabled_paused_or_disabled
    CHECK (state IN ('enabled', 'paused', 'disabled')),
  ordered           boolean NOT NULL DEFAULT false,
  format            text NOT NULL DEFAULT 'standard'
    CONSTRAINT endpoint_format_is_standard_cloudevents_raw_or_classic
    CHECK (format IN ('standard', 'cloudevents', 'cloudevents-binary', 'raw', 'classic')),
  headers           jsonb NOT NULL DEFAULT '{}',
  -- A function f(outbox.event) returns jsonb, by its name; its result is sent instead of what `format` says.
  transform         text,
  timeout           interval NOT NULL DEFAULT '15 s'
    CONSTRAINT endpoint_timeout_is_50_ms_to_5_min
    CHECK (timeout BETWEEN '50 ms' AND '5 min'),
  first_delay       interval NOT NULL DEFAULT '5 s'
    CONSTRAINT endpoint_first_delay_is_10_ms_to_1_day
    CHECK (first_delay BETWEEN '10 ms' AND '1 day'),
  multiplier        float8 NOT NULL DEFAULT 3
    CONSTRAINT endpoint_multiplier_is_1_to_100
    CHECK (multiplier BETWEEN 1 AND 100),
  longest_delay     interval NOT NULL DEFAULT '12 h'
    CONSTRAINT endpoint_longest_delay_is_10_ms_to_30_days
    CHECK (longest_delay BETWEEN '10 ms' AND '30 days'),
  jitter            float8 NOT NULL DEFAULT 0.1
    CONSTRAINT endpoint_jitter_is_0_to_1
    CHECK (jitter BETWEEN 0 AND 1),
  -- Instead of first_delay, multiplier, longest_delay and max_attempts: the pause before each further attempt.
  retry_delays      interval[]
    CONSTRAINT endpoint_retry_delays_are_1_to_1000_of_10_ms_to_30_days
    CHECK (cardinality(retry_delays) BETWEEN 1 AND 1000 AND array_position(retry_delays, NULL) IS NULL
           AND '10 ms' <= ALL (retry_delays) AND '30 days' >= ALL (retry_delays)),
  max_attempts      int NOT NULL DEFAULT 15
    CONSTRAINT endpoint_max_attempts_is_1_to_1000
    CHECK (max_attempts BETWEEN 1 AND 1000),
  max_age           interval NOT NULL DEFAULT '7 days'
    CONSTRAINT endpoint_max_age_is_1_s_to_365_days
    CHECK (max_age BETWEEN '1 s' AND '365 days'),
  -- Requests at a time, of each dispatcher.
  max_in_flight     int NOT NULL DEFAULT 32
    CONSTRAINT endpoint_max_in_flight_is_1_to_10000
    CHECK (max_in_flight BETWEEN 1 AND 10000),
  -- Deliveries a second, over all dispatchers; null: as fast as it answers. The bucket is a sequence, outbox.rate_<id>.
  rate_limit        float8
    CONSTRAINT endpoint_rate_limit_is_0_001_to_100000_a_second
    CHECK (rate_limit BETWEEN 0.001 AND 100000),
  -- The circuit opens after so many failures in a row, or when of the outcomes in a window so large a part are failures.
  failure_threshold int NOT NULL DEFAULT 10
    CONSTRAINT endpoint_failure_threshold_is_1_to_1000000
    CHECK (failure_threshold BETWEEN 1 AND 1000000),
  failure_rate      float8 DEFAULT 0.5
    CONSTRAINT endpoint_failure_rate_is_above_0_and_at_most_1
    CHECK (failure_rate > 0 AND failure_rate <= 1),
  failure_window    interval NOT NULL DEFAULT '1 min'
    CONSTRAINT endpoint_failure_window_is_1_s_to_1_day
    CHECK (failure_window BETWEEN '1 s' AND '1 day'),
  -- After so long a time of nothing but failures it is disabled; null: never.
  disable_after     interval DEFAULT '5 days'
    CONSTRAINT endpoint_disable_after_is_1_s_to_365_days
    CHECK (disable_after BETWEEN '1 s' AND '365 days'),
  -- What a dead letter means for later events of its key, where order matters: they go on, or they wait until it is
  -- redriven or discarded.
  on_dead_letter    text NOT NULL DEFAULT 'skip'
    CONSTRAINT endpoint_on_dead_letter_is_skip_or_hold
    CHECK (on_dead_letter IN ('skip', 'hold')),
  -- Set when Martlet disabled it by itself; cleared when it is enabled again.
  disabled_at       timestamptz,
  disabled_because  text,
  created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Signing secrets, apart from the endpoint so that only the dispatcher's role can read them. `secret` is whsec_… (HMAC),
-- whsk_… (ed25519), or either of them sealed: encrypted with a key that the database does not have. `public_key` is
-- whpk_…, of ed25519 only; null as long as nobody has worked it out.
CREATE TABLE outbox.endpoint_secret (
  endpoint_id bigint NOT NULL REFERENCES outbox.endpoint ON DELETE CASCADE,
  id          bigint GENERATED ALWAYS AS IDENTITY,
  secret      text NOT NULL,
  kind        text NOT NULL CHECK (kind IN ('hmac', 'ed25519')),
  public_key  text CHECK (public_key IS NULL OR kind = 'ed25519' AND public_key ~ '^whpk_[A-Za-z0-9+/]{43}=$'),
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at  timestamptz,
  PRIMARY KEY (endpoint_id, id)
);

-- endpoint.event_types turned round: from a pattern to the endpoints that ask for it, so that matching costs nothing for
-- endpoints that do not match. Kept by a trigger on endpoint. `since`: events with tx >= since were certainly cut while
-- this row was there (stamped by outbox.stamp_subscriptions); what the reconciler can prove begins there.
CREATE TABLE outbox.subscription (
  tenant      text NOT NULL,
  pattern     text NOT NULL,
  endpoint_id bigint NOT NULL REFERENCES outbox.endpoint ON DELETE CASCADE,
  since       xid8,
  -- The endpoint's, so that a cut need not look at the endpoints of events that do not pass it.
  filter      jsonpath,
  PRIMARY KEY (tenant, pattern, endpoint_id)
);
-- Subscriptions of the past: events with tx >= since that `until`, the position when it ended, had seen were certainly cut
-- while this was one. The reconciler proves conservation for them, too.
CREATE TABLE outbox.past_subscription (
  tenant      text NOT NULL,
  pattern     text NOT NULL,
  endpoint_id bigint NOT NULL,
  since       xid8 NOT NULL,
  until       pg_snapshot NOT NULL,
  filter      jsonpath,
  ended_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX past_subscription_pattern ON outbox.past_subscription (tenant, pattern);
CREATE INDEX subscription_endpoint ON outbox.subscription (endpoint_id);
CREATE INDEX subscription_unstamped ON outbox.subscription (endpoint_id) WHERE since IS NULL;

-- Endpoints whose filter could not tell of some events whether they match; they were not delivered there. Apart from
-- endpoint_health, because only a cut writes it, and only one cuts at a time: nobody waits, and no order of locks is needed.
-- Gone when the filter is changed.
CREATE TABLE outbox.filter_failure (
  endpoint_id bigint PRIMARY KEY REFERENCES outbox.endpoint ON DELETE CASCADE,
  failures    bigint NOT NULL,
  since       timestamptz NOT NULL DEFAULT clock_timestamp(),
  failed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  error       text NOT NULL
) WITH (fillfactor = 50);

-- Pairs of event and endpoint that a cut passed over because filters took too long: the one thing that cannot be told from
-- event and filter alone. Written only then; no more than a cut has time for.
CREATE TABLE outbox.skipped (
  event_id    uuid NOT NULL,
  endpoint_id bigint NOT NULL,
  because     text NOT NULL,
  at          timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (event_id, endpoint_id)
);

-- Keys under which something was published, for as long as the same key publishes nothing anew (outbox.publish).
CREATE TABLE outbox.dedup (
  tenant     text NOT NULL,
  key        text NOT NULL,
  event_id   uuid NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (tenant, key)
);
CREATE INDEX dedup_expires ON outbox.dedup (expires_at);

-- How far the log has been cut. Append-only; the newest row is the truth.
CREATE TABLE outbox.position (
  id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  done     pg_snapshot NOT NULL,
  target   pg_snapshot NOT NULL,
  after_tx xid8,
  after_id uuid,
  events   int NOT NULL,
  cut_at   timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The ledger of what has been proved (outbox.prove), a row per some thousand events. `done`, `target`, `after_tx`, `after_id`
-- say how far the proof has followed the cut, and mean what they mean in outbox.position; the counts are of what was cut
-- between the row before and this one. No event can join those later, whatever the order of commits and whatever the clock
-- says. Pairs that still wait, fly or are missing are kept as `open`; only they are looked at again, when `due_at` has come.
-- Null: all is delivered or dead, and the row is never read for more than its counts.
CREATE TABLE outbox.proof (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  done           pg_snapshot NOT NULL,
  target         pg_snapshot NOT NULL,
  after_tx       xid8,
  after_id       uuid,
  events         bigint NOT NULL DEFAULT 0,
  oldest         timestamptz,  -- their created_at
  newest         timestamptz,
  pairs          bigint GENERATED ALWAYS AS (delivered + dead + waiting + in_flight + missing) STORED,
  delivered      bigint NOT NULL DEFAULT 0,
  dead           bigint NOT NULL DEFAULT 0,
  waiting        bigint NOT NULL DEFAULT 0,
  in_flight      bigint NOT NULL DEFAULT 0,
  missing        bigint NOT NULL DEFAULT 0,
  skipped        bigint NOT NULL DEFAULT 0,
  open_events    uuid[],
  open_endpoints bigint[],
  began_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  proved_at      timestamptz NOT NULL DEFAULT clock_timestamp(),  -- taken before the look at the tables
  due_at         timestamptz
) WITH (fillfactor = 80);
CREATE INDEX proof_due ON outbox.proof (due_at) WHERE due_at IS NOT NULL;

-- Live dispatchers and their leases.
CREATE TABLE outbox.dispatcher (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name       text NOT NULL,
  host       text NOT NULL,
  pid        int NOT NULL,
  version    text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);
-- Of a dispatcher's row, the newest version first: behind a long transaction every renewal of the lease leaves one.
CREATE INDEX dispatcher_newest ON outbox.dispatcher (id, expires_at);

-- The dispatchers that know of everything committed since the last crash. Unlogged, so a crash (or a failover) empties it:
-- exactly when asynchronously committed outcomes may have been taken back. A dispatcher that is not in it must compare what
-- it remembers with what is there (outbox.resync) before it takes another step.
CREATE UNLOGGED TABLE outbox.witness (
  dispatcher_id bigint PRIMARY KEY,
  -- The number of its last resync. What it sent before, and what arrives only now, means nothing any more.
  resyncs       bigint NOT NULL DEFAULT 0
);

-- A lease on direct deliveries: what one cut handed to one dispatcher. Written at the cut, removed with its last outcome.
-- Its id is not from a sequence: cuts are committed asynchronously, a crash may take back what a sequence gave out, and a
-- dispatcher that outlives the crash must not take a new batch for the one it remembers. Microseconds and three random
-- digits, one cut at a time: never twice.
CREATE TABLE outbox.batch (
  id            bigint PRIMARY KEY
                DEFAULT (date_part('epoch', clock_timestamp()) * 1000000)::bigint * 1000 + (random() * 999)::int,
  dispatcher_id bigint NOT NULL,
  event_ids     uuid[] NOT NULL,
  endpoint_ids  bigint[] NOT NULL,
  cut_at        timestamptz NOT NULL DEFAULT clock_timestamp()
);
-- Compressing ids that are mostly random costs more than it saves.
ALTER TABLE outbox.batch ALTER event_ids SET STORAGE EXTERNAL, ALTER endpoint_ids SET STORAGE EXTERNAL;

-- Deliveries that wait or are being retried. `key` is set only where order matters (ordered endpoint, event with a key);
-- of each key only the head is `ready`, so that a claim never walks over blocked rows.
CREATE SEQUENCE outbox.delivery_seq;
CREATE TABLE outbox.delivery (
  event_id      uuid NOT NULL,
  endpoint_id   bigint NOT NULL,
  seq           bigint NOT NULL DEFAULT nextval('outbox.delivery_seq'),
  key           text,
  ready         boolean NOT NULL DEFAULT true,
  attempts      int NOT NULL DEFAULT 0,
  due_at        timestamptz NOT NULL,
  dispatcher_id bigint,
  last_status   int,
  last_error    text,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (event_id, endpoint_id)
);
CREATE INDEX delivery_due ON outbox.delivery (endpoint_id, due_at) WHERE ready AND dispatcher_id IS NULL;
CREATE INDEX delivery_key ON outbox.delivery (endpoint_id, key, seq) WHERE key IS NOT NULL;
-- Not ready and without a key: set aside until what may come before it in its key has been cut (outbox.settle).
CREATE INDEX delivery_set_aside ON outbox.delivery (event_id, endpoint_id) WHERE NOT ready AND key IS NULL;
CREATE INDEX delivery_claimed ON outbox.delivery (dispatcher_id) WHERE dispatcher_id IS NOT NULL;

-- What became of a try. `returned`: handed back untried. `unknown`: the dispatcher was lost before it could say.
CREATE TYPE outbox.outcome AS ENUM ('delivered', 'failed', 'returned', 'unknown');

-- History. Append-only, dropped by the day, and in two forms. What was delivered at the first try, straight from the log, which
-- is nearly all: many to a row, so that each costs 25 bytes of the write-ahead log rather than 200. They are found by the second
-- in which their events were made. All else, and what is too little to be worth packing: one to a row.
-- Read both as outbox.attempt.
CREATE TABLE outbox.attempt_single (
  event_id      uuid NOT NULL,
  endpoint_id   bigint NOT NULL,
  batch_id      bigint,
  dispatcher_id bigint NOT NULL,
  at            timestamptz NOT NULL DEFAULT clock_timestamp(),
  outcome       outbox.outcome NOT NULL,
  duration_ms   int,
  attempt       smallint NOT NULL,
  status        smallint,
  error         text,
  response      text
) PARTITION BY RANGE (at);
CREATE TABLE outbox.attempt_single_default PARTITION OF outbox.attempt_single DEFAULT;
CREATE INDEX attempt_single_event ON outbox.attempt_single (event_id, endpoint_id);

CREATE TABLE outbox.attempt_packed (
  second        bigint NOT NULL,  -- outbox.uuid_second of every event in it
  batch_id      bigint NOT NULL,
  dispatcher_id bigint NOT NULL,
  at            timestamptz NOT NULL DEFAULT clock_timestamp(),
  event_ids     uuid[] NOT NULL,
  endpoint_ids  bigint[] NOT NULL,
  durations_ms  int[] NOT NULL,
  statuses      smallint[] NOT NULL
) PARTITION BY RANGE (at);
-- Ids are mostly random; the rest is much the same from one to the next, and compressed.
ALTER TABLE outbox.attempt_packed ALTER event_ids SET STORAGE EXTERNAL;
CREATE TABLE outbox.attempt_packed_default PARTITION OF outbox.attempt_packed DEFAULT;
CREATE INDEX attempt_packed_second ON outbox.attempt_packed (second, batch_id);

CREATE VIEW outbox.attempt_unpacked AS
SELECT p.second, p.batch_id, p.dispatcher_id, p.at, u.event_id, u.endpoint_id, u.duration_ms, u.status
FROM outbox.attempt_packed p
CROSS JOIN LATERAL unnest(p.event_ids, p.endpoint_ids, p.durations_ms, p.statuses) u(event_id, endpoint_id, duration_ms, status);

-- Every try. Ask for event ids, or for times: what is packed is found by its event, which tells the second; and if the log
-- does not go back so far any more, by looking at everything that is older than the log.
CREATE VIEW outbox.attempt AS
SELECT s.event_id, s.endpoint_id, s.batch_id, s.dispatcher_id, s.at, s.outcome, s.duration_ms, s.attempt, s.status, s.error, s.response
FROM outbox.attempt_single s
UNION ALL
SELECT u.event_id, u.endpoint_id, u.batch_id, u.dispatcher_id, u.at, 'delivered', u.duration_ms, 1::smallint, u.status, NULL, NULL
FROM outbox.event e
JOIN outbox.attempt_unpacked u ON u.event_id = e.id
  -- outbox.uuid_second written out, here and in outbox.direct_in_flight: who reads a view would need the right to call it.
  AND u.second = ('x' || encode(substr(uuid_send(e.id), 1, 6), 'hex'))::bit(48)::bigint / 1000
UNION ALL
SELECT u.event_id, u.endpoint_id, u.batch_id, u.dispatcher_id, u.at, 'delivered', u.duration_ms, 1::smallint, u.status, NULL, NULL
FROM outbox.attempt_unpacked u
-- Of a range with two ends the planner expects a few rows, as there are; with one, a third of the table.
WHERE u.second BETWEEN 0
                   AND (SELECT extract(epoch FROM date_trunc('day', clock_timestamp() AT TIME ZONE 'UTC') - x.value::interval)::bigint - 1
                        FROM outbox.setting x WHERE x.name = 'event_retention')
  AND NOT EXISTS (SELECT FROM outbox.event e WHERE e.id = u.event_id);

-- Given up. Self-contained: it can be read, and redriven, after its event has expired.
CREATE TABLE outbox.dead_letter (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  event_id         uuid NOT NULL,
  endpoint_id      bigint NOT NULL,
  url              text NOT NULL,
  type             text NOT NULL,
  tenant           text NOT NULL,
  key              text,
  payload          jsonb NOT NULL,
  metadata         jsonb NOT NULL DEFAULT '{}',
  created_at       timestamptz NOT NULL,
  attempts         int NOT NULL,
  reason           text NOT NULL CHECK (reason IN ('exhausted', 'gone', 'expired', 'rejected', 'discarded')),
  last_status      int,
  last_error       text,
  first_attempt_at timestamptz,
  died_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- Set while later events of its key wait for it (endpoint.on_dead_letter = 'hold'): its place among them, delivery.seq.
  seq              bigint
);
CREATE UNIQUE INDEX dead_letter_event ON outbox.dead_letter (event_id, endpoint_id);
CREATE INDEX dead_letter_endpoint ON outbox.dead_letter (endpoint_id, died_at);
CREATE INDEX dead_letter_died ON outbox.dead_letter (died_at);
CREATE INDEX dead_letter_hold ON outbox.dead_letter (endpoint_id, key) WHERE seq IS NOT NULL;

-- Circuit breaker and failure counters. A row is written only when something fails or recovers.
CREATE TABLE outbox.endpoint_health (
  endpoint_id          bigint PRIMARY KEY REFERENCES outbox.endpoint ON DELETE CASCADE,
  state                text NOT NULL DEFAULT 'closed' CHECK (state IN ('closed', 'open', 'half_open')),
  consecutive_failures int NOT NULL DEFAULT 0,
  opened_at            timestamptz,
  probe_at             timestamptz,
  failing_since        timestamptz,
  last_error           text,
  last_failure_at      timestamptz,
  -- The window in which failures are weighed against successes: null unless one is open. Of a circuit that the failure
  -- rate opened it stays as it was then.
  window_started_at    timestamptz,
  window_failed        int NOT NULL DEFAULT 0,
  window_succeeded     int NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- Everything before this moment counts as cut: the log is empty.
INSERT INTO outbox.position (done, target, events) VALUES (pg_current_snapshot(), pg_current_snapshot(), 0);
INSERT INTO outbox.proof (done, target) SELECT p.done, p.target FROM outbox.position p;
INSERT INTO outbox.anchor (system_identifier, database_oid)
SELECT c.system_identifier, d.oid FROM pg_control_system() c, pg_database d WHERE d.datname = current_database();
COMMIT;
