-- Martlet 0015: roles. Roles belong to the cluster: they are made if they are not there, and never dropped.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(15, 'roles');

DO $$
DECLARE r text;
BEGIN
  FOREACH r IN ARRAY '{outbox_publisher,outbox_dispatcher,outbox_operator}'::text[] LOOP
    BEGIN
      IF to_regrole(r) IS NULL THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN', r);
      END IF;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;  -- made by a migration of another database at the same time
    END;
  END LOOP;
  -- The reconciler looks for long transactions. Without this it reports that it could not.
  BEGIN
    FOREACH r IN ARRAY '{outbox_dispatcher,outbox_operator}'::text[] LOOP
      IF NOT pg_has_role(r, 'pg_read_all_stats', 'MEMBER') THEN
        EXECUTE format('GRANT pg_read_all_stats TO %I', r);
      END IF;
    END LOOP;
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'could not GRANT pg_read_all_stats TO outbox_dispatcher, outbox_operator; the reconciler will say so';
  END;
END $$;

REVOKE ALL ON SCHEMA outbox FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox FROM PUBLIC;
GRANT USAGE ON SCHEMA outbox TO outbox_publisher, outbox_dispatcher, outbox_operator;

-- A publisher inserts events, and nothing else: not their id, not their tx, and it reads nothing.
GRANT INSERT (type, tenant, key, payload, metadata, not_before) ON outbox.event TO outbox_publisher;
GRANT EXECUTE ON FUNCTION outbox.publish, outbox.uuid_v7(), outbox.may_speak_for_martlet() TO outbox_publisher;

GRANT SELECT ON outbox.event, outbox.endpoint, outbox.subscription, outbox.past_subscription, outbox.endpoint_secret, outbox.position, outbox.dispatcher,
  outbox.batch, outbox.delivery, outbox.attempt, outbox.attempt_single, outbox.attempt_packed, outbox.attempt_unpacked,
  outbox.dead_letter, outbox.endpoint_health, outbox.migration, outbox.setting, outbox.anchor, outbox.backlog,
  outbox.endpoint_status, outbox.delivery_status, outbox.stuck, outbox.in_flight, outbox.direct_in_flight TO outbox_dispatcher;
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox.witness TO outbox_dispatcher, outbox_operator;
GRANT SELECT, INSERT, UPDATE ON outbox.filter_failure TO outbox_dispatcher;
GRANT INSERT ON outbox.position, outbox.dispatcher, outbox.batch, outbox.delivery, outbox.attempt_single, outbox.attempt_packed,
  outbox.dead_letter, outbox.endpoint_health TO outbox_dispatcher;
GRANT UPDATE ON outbox.dispatcher, outbox.delivery, outbox.endpoint_health TO outbox_dispatcher;
GRANT UPDATE (state, version, updated_at, disabled_at, disabled_because) ON outbox.endpoint TO outbox_dispatcher;
GRANT UPDATE (since) ON outbox.subscription TO outbox_dispatcher, outbox_operator;
GRANT DELETE ON outbox.dispatcher, outbox.batch, outbox.delivery TO outbox_dispatcher;
-- Martlet's own events, of endpoints and dead letters.
GRANT INSERT (type, tenant, key, payload) ON outbox.event TO outbox_dispatcher;
GRANT USAGE ON SEQUENCE outbox.delivery_seq, outbox.endpoint_version TO outbox_dispatcher, outbox_operator;

-- An operator reads everything but secrets, and repairs.
GRANT SELECT ON outbox.event, outbox.endpoint, outbox.subscription, outbox.past_subscription, outbox.position, outbox.dispatcher, outbox.batch,
  outbox.delivery, outbox.attempt, outbox.attempt_single, outbox.attempt_packed, outbox.attempt_unpacked, outbox.dead_letter,
  outbox.endpoint_health, outbox.migration, outbox.setting, outbox.anchor, outbox.backlog, outbox.endpoint_status,
  outbox.delivery_status, outbox.stuck, outbox.in_flight, outbox.direct_in_flight TO outbox_operator;
GRANT SELECT, DELETE ON outbox.filter_failure TO outbox_operator;
GRANT SELECT ON outbox.dedup TO outbox_operator;
GRANT SELECT (endpoint_id, id, kind, public_key, created_at, expires_at), UPDATE (expires_at) ON outbox.endpoint_secret TO outbox_operator;
GRANT INSERT, UPDATE ON outbox.endpoint TO outbox_operator;
GRANT INSERT (endpoint_id, secret, public_key) ON outbox.endpoint_secret TO outbox_operator;
GRANT INSERT ON outbox.event, outbox.delivery, outbox.attempt_single TO outbox_operator;
GRANT UPDATE ON outbox.delivery, outbox.endpoint_health, outbox.dispatcher, outbox.dead_letter, outbox.setting TO outbox_operator;
GRANT DELETE ON outbox.delivery, outbox.dead_letter, outbox.dispatcher, outbox.batch TO outbox_operator;

GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA outbox TO outbox_dispatcher, outbox_operator;
-- But for triggers, which run for whoever changes their table without this right. It is the right to attach them to a table of
-- one's own, with types of one's own, whose casts would then run with the owner's rights.
REVOKE EXECUTE ON FUNCTION outbox.change_attempt, outbox.check_endpoint, outbox.subscribe_endpoint, outbox.forget_endpoint, outbox.check_secret,
  outbox.tell_of_expiry FROM outbox_dispatcher, outbox_operator;
COMMIT;
