-- Martlet 0018: transforms: an endpoint may name a function that makes the body of its requests.
--
-- The function runs in the dispatcher's session, so it may do what the dispatcher may, reading secrets included. Only
-- functions on a list are called, and only the owner of the schema writes that list; operators choose from it.
BEGIN;
SELECT pg_advisory_xact_lock(1296126548, 1);
SELECT outbox.begin_migration(18, 'transform');

CREATE TABLE outbox.transform (
  name       text PRIMARY KEY,  -- schema.function, quoted where SQL needs it
  allowed_by text NOT NULL DEFAULT session_user,
  allowed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The name of a transform as it is kept: `shop.slack_message`. Null if it is not a schema and a name.
CREATE FUNCTION outbox.transform_name(name text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE parts text[];
BEGIN
  parts := parse_ident(name);
  RETURN CASE WHEN cardinality(parts) = 2 THEN format('%I.%I', parts[1], parts[2]) END;
EXCEPTION WHEN invalid_parameter_value THEN
  RETURN NULL;
END $$;

-- What is wrong with a function as a transform, in words; null if nothing.
CREATE FUNCTION outbox.transform_problem(name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
  SELECT CASE
    WHEN outbox.transform_name(name) IS NULL THEN format('%s is not of the form schema.function', to_json(name))
    WHEN p.oid IS NULL THEN format('there is no function %s(outbox.event)', outbox.transform_name(name))
    WHEN p.prorettype <> 'jsonb'::regtype OR p.proretset OR p.prokind <> 'f'
      THEN format('%s must be a function that returns one jsonb', p.oid::regprocedure)
  END
  FROM (SELECT to_regprocedure(outbox.transform_name(name) || '(outbox.event)')) x(id) LEFT JOIN pg_proc p ON p.oid = x.id
$$;

-- Puts a function on the list, and lets the dispatcher call it. For the owner of the schema: it will run with the
-- dispatcher's rights (or, if it is SECURITY DEFINER, with its owner's), in a read-only transaction.
CREATE FUNCTION outbox.allow_transform(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  problem CONSTANT text := outbox.transform_problem(name);
  full_name CONSTANT text := outbox.transform_name(name);
BEGIN
  IF problem IS NOT NULL THEN
    RAISE EXCEPTION 'the transform is not usable: %', problem USING ERRCODE = 'check_violation',
      HINT = 'CREATE FUNCTION shop.slack_message(e outbox.event) RETURNS jsonb LANGUAGE sql STABLE AS ...';
  END IF;
  INSERT INTO outbox.transform (name) VALUES (full_name) ON CONFLICT DO NOTHING;
  BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO outbox_dispatcher', (parse_ident(full_name))[1]);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s(outbox.event) TO outbox_dispatcher', full_name);
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'could not GRANT outbox_dispatcher the use of %; its owner must', full_name;
  END;
END $$;

-- Takes a function off the list. Deliveries to endpoints that name it fail from now on, and are tried again.
CREATE FUNCTION outbox.forbid_transform(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM outbox.transform t WHERE t.name = outbox.transform_name(forbid_transform.name);
  IF NOT FOUND THEN
    RAISE EXCEPTION 'no transform % is allowed', name USING ERRCODE = 'no_data_found', HINT = 'SELECT name FROM outbox.transform';
  END IF;
END $$;

-- SECURITY DEFINER: whoever may change an endpoint need not see every schema.
CREATE FUNCTION outbox.check_transform() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.transform := coalesce(outbox.transform_name(NEW.transform), NEW.transform);
  IF NOT EXISTS (SELECT FROM outbox.transform t WHERE t.name = NEW.transform) THEN
    RAISE EXCEPTION 'the transform is not usable: %',
      coalesce(outbox.transform_problem(NEW.transform), NEW.transform || ' is not allowed')
      USING ERRCODE = 'check_violation',
      HINT = format('SELECT name FROM outbox.transform shows those that are. The owner of the schema allows one: SELECT outbox.allow_transform(%L)', NEW.transform);
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER check_transform BEFORE INSERT OR UPDATE OF transform ON outbox.endpoint
  FOR EACH ROW WHEN (NEW.transform IS NOT NULL) EXECUTE FUNCTION outbox.check_transform();

-- What an endpoint's transform makes of an event. The dispatcher calls it in a session of its own, read-only and with a
-- statement timeout; an operator may, to see what comes of it.
-- Index: event_pkey, endpoint_pkey, transform_pkey.
CREATE FUNCTION outbox.transformed(endpoint bigint, event uuid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  function_name CONSTANT text := (SELECT e.transform FROM outbox.endpoint e WHERE e.id = transformed.endpoint);
  body jsonb;
BEGIN
  IF function_name IS NULL THEN
    RAISE EXCEPTION 'endpoint % has no transform', endpoint USING ERRCODE = 'no_data_found';
  ELSIF NOT EXISTS (SELECT FROM outbox.transform t WHERE t.name = function_name) THEN
    RAISE EXCEPTION 'it is not allowed (any more)' USING ERRCODE = 'insufficient_privilege',
      HINT = format('SELECT outbox.allow_transform(%L)', function_name);
  END IF;
  EXECUTE format('SELECT %s(e) FROM outbox.event e WHERE e.id = $1', function_name) INTO body USING event;
  IF body IS NULL THEN
    RAISE EXCEPTION 'it returned null' USING ERRCODE = 'null_value_not_allowed';
  ELSIF octet_length(body::text) > 1048576 THEN
    RAISE EXCEPTION 'it returned % bytes; at most 1 MiB is sent', octet_length(body::text) USING ERRCODE = 'program_limit_exceeded';
  END IF;
  RETURN body;
END $$;

REVOKE ALL ON FUNCTION outbox.transform_name, outbox.transform_problem, outbox.allow_transform, outbox.forbid_transform,
  outbox.check_transform, outbox.transformed FROM PUBLIC;
GRANT SELECT ON outbox.transform TO outbox_dispatcher, outbox_operator;
GRANT EXECUTE ON FUNCTION outbox.transform_name, outbox.transform_problem, outbox.transformed TO outbox_dispatcher, outbox_operator;
COMMIT;
