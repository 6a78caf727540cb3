-- Martlet 0020: operators of one tenant, who see and repair what is their tenant's, and nothing else.
--
--   CREATE ROLE acme_support LOGIN;
--   SELECT outbox.allow_tenant('acme_support', 'acme');
--
-- They have no right in schema `outbox`. All they may use is in schema `outbox_tenant`, under the names it has there: views
-- with a WHERE and functions that look first. Not CREATE POLICY on the tables: a batch holds the pairs of many tenants, a
-- delivery has no tenant of its own, a policy on the log would be part of every publisher's insert and of every cut, and
-- before PostgreSQL 15 views and functions pass by policies anyhow. So nothing here touches what dispatchers do.
--
-- Views are security barriers: whoever brings a function of his own into a query of them sees no row of others with it.
-- Views ask who `current_user` is; functions, which run with their owner's rights, who called the statement.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(20, 'tenants');

DO $$
BEGIN
  IF to_regrole('outbox_tenant_operator') IS NULL THEN
    CREATE ROLE outbox_tenant_operator NOLOGIN;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
  NULL;  -- made by a migration of another database at the same time
END $$;

-- Which role, and whoever has its rights, is an operator of which tenant. By name: a dump may be restored without the roles.
CREATE TABLE outbox.tenant_operator (
  role       text NOT NULL,
  tenant     text NOT NULL,
  allowed_by text NOT NULL DEFAULT session_user,
  allowed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (role, tenant)
);

CREATE SCHEMA outbox_tenant;

-- Lets a role see and repair what is a tenant's. For the owner of the schema, who must be allowed to grant roles, too.
CREATE FUNCTION outbox.allow_tenant(role text, tenant text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE member CONSTANT oid := to_regrole(quote_ident(role));
BEGIN
  IF member IS NULL THEN
    RAISE EXCEPTION 'there is no role %', role USING ERRCODE = 'undefined_object', HINT = format('CREATE ROLE %I LOGIN', role);
  ELSIF tenant IS NULL OR octet_length(tenant) > 255 THEN
    RAISE EXCEPTION 'the tenant must be at most 255 bytes, and not null' USING ERRCODE = 'check_violation';
  ELSIF pg_has_role(member, 'outbox_operator', 'MEMBER') OR pg_has_role(member, 'outbox_dispatcher', 'MEMBER') THEN
    RAISE EXCEPTION 'role % may see every tenant''s already: it has the rights of outbox_operator or outbox_dispatcher', role
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  INSERT INTO outbox.tenant_operator (role, tenant) VALUES (role, tenant) ON CONFLICT DO NOTHING;
  EXECUTE format('GRANT outbox_tenant_operator TO %I', role);
END $$;

-- Takes that away again.
CREATE FUNCTION outbox.forbid_tenant(role text, tenant text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM outbox.tenant_operator t WHERE t.role = forbid_tenant.role AND t.tenant = forbid_tenant.tenant;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'role % is no operator of tenant %', role, tenant
      USING ERRCODE = 'no_data_found', HINT = 'SELECT role, tenant FROM outbox.tenant_operator';
  END IF;
  IF to_regrole(quote_ident(role)) IS NOT NULL AND NOT EXISTS (SELECT FROM outbox.tenant_operator t WHERE t.role = forbid_tenant.role) THEN
    EXECUTE format('REVOKE outbox_tenant_operator FROM %I', role);
  END IF;
END $$;

-- The tenants of whoever asks.
CREATE VIEW outbox_tenant.tenant WITH (security_barrier) AS
SELECT DISTINCT t.tenant FROM outbox.tenant_operator t
WHERE pg_has_role(current_user, to_regrole(quote_ident(t.role))::oid, 'USAGE');

CREATE VIEW outbox_tenant.event WITH (security_barrier) AS
SELECT e.* FROM outbox.event e WHERE e.tenant IN (SELECT t.tenant FROM outbox_tenant.tenant t);

CREATE VIEW outbox_tenant.endpoint WITH (security_barrier) AS
SELECT e.* FROM outbox.endpoint e WHERE e.tenant IN (SELECT t.tenant FROM outbox_tenant.tenant t);

-- Public halves; HMAC keys have none.
CREATE VIEW outbox_tenant.endpoint_key WITH (security_barrier) AS
SELECT k.* FROM outbox.endpoint_key k WHERE EXISTS (SELECT FROM outbox_tenant.endpoint e WHERE e.id = k.endpoint_id);

CREATE VIEW outbox_tenant.endpoint_status WITH (security_barrier) AS
SELECT s.* FROM outbox.endpoint_status s WHERE s.tenant IN (SELECT t.tenant FROM outbox_tenant.tenant t);

CREATE VIEW outbox_tenant.backlog WITH (security_barrier) AS
SELECT b.* FROM outbox.backlog b WHERE b.tenant IN (SELECT t.tenant FROM outbox_tenant.tenant t);

-- A dead letter has the tenant of its event. Where an operator sent that to an endpoint of somebody else, neither sees it.
CREATE VIEW outbox_tenant.dead_letter WITH (security_barrier) AS
SELECT l.* FROM outbox.dead_letter l
WHERE l.tenant IN (SELECT t.tenant FROM outbox_tenant.tenant t)
  AND NOT EXISTS (SELECT FROM outbox.endpoint e
                  WHERE e.id = l.endpoint_id AND e.tenant NOT IN (SELECT t.tenant FROM outbox_tenant.tenant t));

-- What has no tenant of its own is seen by those whose are both the event and the endpoint: either may be moved or sent
-- elsewhere by an operator.
CREATE VIEW outbox_tenant.delivery WITH (security_barrier) AS
SELECT d.* FROM outbox.delivery d
WHERE EXISTS (SELECT FROM outbox_tenant.endpoint e WHERE e.id = d.endpoint_id)
  AND EXISTS (SELECT FROM outbox_tenant.event v WHERE v.id = d.event_id);

CREATE VIEW outbox_tenant.stuck WITH (security_barrier) AS
SELECT s.* FROM outbox.stuck s
WHERE EXISTS (SELECT FROM outbox_tenant.endpoint e WHERE e.id = s.endpoint_id)
  AND EXISTS (SELECT FROM outbox_tenant.event v WHERE v.id = s.event_id);

-- History, for as long as the event is in the log, or a dead letter tells whose it was.
CREATE VIEW outbox_tenant.attempt WITH (security_barrier) AS
SELECT a.* FROM outbox.attempt a
WHERE EXISTS (SELECT FROM outbox_tenant.endpoint e WHERE e.id = a.endpoint_id)
  AND (EXISTS (SELECT FROM outbox_tenant.event v WHERE v.id = a.event_id)
       OR EXISTS (SELECT FROM outbox_tenant.dead_letter l WHERE l.event_id = a.event_id AND l.endpoint_id = a.endpoint_id));

CREATE VIEW outbox_tenant.delivery_status WITH (security_barrier) AS
SELECT s.* FROM outbox.delivery_status s
WHERE EXISTS (SELECT FROM outbox_tenant.endpoint e WHERE e.id = s.endpoint_id)
  AND (EXISTS (SELECT FROM outbox_tenant.event v WHERE v.id = s.event_id)
       OR EXISTS (SELECT FROM outbox_tenant.dead_letter l WHERE l.event_id = s.event_id AND l.endpoint_id = s.endpoint_id));

-- Whether a tenant is one of those of whoever called the statement. In a function with its owner's rights `current_user` is
-- that owner; `role` and `session_user` stay what they were.
CREATE FUNCTION outbox_tenant.is_own(tenant text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT EXISTS (
    SELECT FROM outbox.tenant_operator t
    WHERE t.tenant = is_own.tenant
      AND pg_has_role(coalesce(nullif(current_setting('role'), 'none'), session_user)::name, to_regrole(quote_ident(t.role))::oid, 'USAGE'))
$$;

-- Whether a dead letter is theirs, as the view has it.
CREATE FUNCTION outbox_tenant.is_own_dead_letter(letter outbox.dead_letter) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT outbox_tenant.is_own(letter.tenant)
    AND NOT EXISTS (SELECT FROM outbox.endpoint e WHERE e.id = letter.endpoint_id AND NOT outbox_tenant.is_own(e.tenant))
$$;

-- Refuses an endpoint of others in the words in which one that does not exist is refused.
CREATE FUNCTION outbox_tenant.require_endpoint(endpoint bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM outbox.endpoint e WHERE e.id = require_endpoint.endpoint AND outbox_tenant.is_own(e.tenant)) THEN
    RAISE EXCEPTION 'there is no endpoint %', endpoint USING ERRCODE = 'no_data_found', HINT = 'SELECT id, url FROM outbox_tenant.endpoint';
  END IF;
END $$;

-- The same of a dead letter.
CREATE FUNCTION outbox_tenant.require_dead_letter(dead_letter bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM outbox.dead_letter l
                 WHERE l.id = require_dead_letter.dead_letter AND outbox_tenant.is_own_dead_letter(l)) THEN
    RAISE EXCEPTION 'there is no dead letter %', dead_letter
      USING ERRCODE = 'no_data_found', HINT = 'SELECT id, reason, url, last_error FROM outbox_tenant.dead_letter';
  END IF;
END $$;

-- The functions of schema `outbox` for one's own. SECURITY DEFINER, all of them: their callers have no right there.
CREATE FUNCTION outbox_tenant.pause(endpoint bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT outbox_tenant.require_endpoint(endpoint); SELECT outbox.pause(endpoint) $$;
CREATE FUNCTION outbox_tenant.resume(endpoint bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT outbox_tenant.require_endpoint(endpoint); SELECT outbox.resume(endpoint) $$;
CREATE FUNCTION outbox_tenant.disable(endpoint bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT outbox_tenant.require_endpoint(endpoint); SELECT outbox.disable(endpoint) $$;
CREATE FUNCTION outbox_tenant.ping(endpoint bigint) RETURNS uuid
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT outbox_tenant.require_endpoint(endpoint); SELECT outbox.ping(endpoint) $$;
CREATE FUNCTION outbox_tenant.redrive(dead_letter bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT outbox_tenant.require_dead_letter(dead_letter); SELECT outbox.redrive(dead_letter) $$;
CREATE FUNCTION outbox_tenant.discard(dead_letter bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT outbox_tenant.require_dead_letter(dead_letter); SELECT outbox.discard(dead_letter) $$;

CREATE FUNCTION outbox_tenant.redrive_where(
  endpoint bigint DEFAULT NULL, reason text DEFAULT NULL, since timestamptz DEFAULT '-infinity', until timestamptz DEFAULT 'infinity'
) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT outbox.redrive_all(ARRAY(
    SELECT l.id FROM outbox.dead_letter l
    WHERE outbox_tenant.is_own_dead_letter(l) AND (endpoint IS NULL OR l.endpoint_id = endpoint)
      AND (l.reason = redrive_where.reason OR (redrive_where.reason IS NULL AND l.reason <> 'discarded'))
      AND l.died_at >= since AND l.died_at < until
    ORDER BY l.id))
$$;

CREATE FUNCTION outbox_tenant.replay(
  endpoint bigint, since timestamptz, until timestamptz DEFAULT 'infinity', types text[] DEFAULT NULL, max_events int DEFAULT 1000000
) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$ SELECT outbox_tenant.require_endpoint(endpoint); SELECT outbox.replay(endpoint, since, until, types, max_events) $$;

-- To the endpoints of the event's tenant: an operator of two tenants does not send one's events to the other.
CREATE FUNCTION outbox_tenant.resend(event uuid, endpoint bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE owner CONSTANT text := (SELECT e.tenant FROM outbox.event e WHERE e.id = resend.event AND outbox_tenant.is_own(e.tenant));
BEGIN
  IF owner IS NULL THEN
    RAISE EXCEPTION 'there is no event %', event USING ERRCODE = 'no_data_found',
      HINT = 'It was never committed, or it is older than the retention of the log; a dead letter of it can be redriven.';
  ELSIF endpoint IS NOT NULL THEN
    PERFORM outbox_tenant.require_endpoint(endpoint);
    IF owner <> (SELECT e.tenant FROM outbox.endpoint e WHERE e.id = resend.endpoint) THEN
      RAISE EXCEPTION 'event % is of another tenant than endpoint %', event, endpoint USING ERRCODE = 'check_violation';
    END IF;
  END IF;
  RETURN outbox.resend(event, endpoint);
END $$;

CREATE FUNCTION outbox_tenant.explain(event uuid)
RETURNS TABLE (endpoint_id bigint, url text, status text, attempt int, at timestamptz, http_status int, detail text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
  IF NOT EXISTS (SELECT FROM outbox.event e WHERE e.id = explain.event AND outbox_tenant.is_own(e.tenant))
     AND NOT EXISTS (SELECT FROM outbox.dead_letter l WHERE l.event_id = explain.event AND outbox_tenant.is_own_dead_letter(l)) THEN
    RAISE EXCEPTION 'there is no event %', event USING ERRCODE = 'no_data_found',
      HINT = 'It was never committed, or it is older than the retention of the log.';
  END IF;
  RETURN QUERY SELECT x.* FROM outbox.explain(event) x
    WHERE x.endpoint_id IS NULL OR EXISTS (SELECT FROM outbox.endpoint e WHERE e.id = x.endpoint_id AND outbox_tenant.is_own(e.tenant));
END $$;

REVOKE ALL ON SCHEMA outbox_tenant FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA outbox, outbox_tenant FROM PUBLIC;
GRANT SELECT ON outbox.tenant_operator TO outbox_operator;
GRANT USAGE ON SCHEMA outbox_tenant TO outbox_tenant_operator;
GRANT SELECT ON ALL TABLES IN SCHEMA outbox_tenant TO outbox_tenant_operator;
GRANT EXECUTE ON FUNCTION outbox_tenant.pause, outbox_tenant.resume, outbox_tenant.disable, outbox_tenant.ping, outbox_tenant.redrive,
  outbox_tenant.discard, outbox_tenant.redrive_where, outbox_tenant.replay, outbox_tenant.resend, outbox_tenant.explain
  TO outbox_tenant_operator;
COMMIT;
