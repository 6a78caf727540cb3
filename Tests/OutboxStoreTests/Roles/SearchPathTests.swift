import Foundation
import OutboxStore
import Postgres
import Testing

/// Functions that run with their owner's rights must not run a caller's objects in place of the ones they mean.
@Suite struct SearchPathTests {
  @Test func everySecurityDefinerFunctionFixesItsSearchPath() async throws {
    try await withDatabase { database in
      let functions = try await database.client().rows(
        """
        SELECT n.nspname || '.' || p.proname, array_to_string(p.proconfig, ' ')
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname IN ('outbox', 'outbox_tenant') AND p.prosecdef ORDER BY 1
        """
      )
      #expect(
        functions.map { $0[0] } == [
          "outbox.check_transform", "outbox.disable_for_filter", "outbox.forget_endpoint", "outbox.maintain",
          "outbox.prove", "outbox.prove_again", "outbox.publish",
          "outbox.subscribe_endpoint", "outbox_tenant.disable", "outbox_tenant.discard", "outbox_tenant.explain",
          "outbox_tenant.pause", "outbox_tenant.ping", "outbox_tenant.redrive", "outbox_tenant.redrive_where",
          "outbox_tenant.replay", "outbox_tenant.resend", "outbox_tenant.resume",
        ]
      )
      #expect(functions.allSatisfy { $0[1]?.contains("search_path=pg_catalog, pg_temp") == true })
    }
  }

  /// A trigger function takes whatever row its table has: on a table of the caller's, with a type of the caller's, a cast of the
  /// caller's would run with the rights of the function's owner.
  @Test func triggerFunctionsCannotBeAttachedToOnesOwnTables() async throws {
    try await withDatabase { database in
      let owner = database.client()
      let triggers = try await owner.column(
        "SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'outbox'::regnamespace AND p.prorettype = 'trigger'::regtype"
      )
      #expect(triggers.count == 8)
      let role = "attacher_\(database.name)"
      try await owner.execute(
        """
        CREATE ROLE \(role) IN ROLE outbox_operator, outbox_dispatcher, outbox_publisher, outbox_tenant_operator;
        GRANT TEMPORARY ON DATABASE \(database.name) TO \(role);
        CREATE TABLE traces (who text); GRANT INSERT ON traces TO \(role);
        """
      )
      let client = database.client()
      try await client.becomes(role)
      try await client.execute(
        """
        CREATE TYPE pg_temp.number AS ENUM ('1');
        CREATE FUNCTION pg_temp.as_bigint(n pg_temp.number) RETURNS bigint LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.traces VALUES (current_user); RETURN 1; END $$;
        CREATE CAST (pg_temp.number AS bigint) WITH FUNCTION pg_temp.as_bigint AS IMPLICIT;
        CREATE TEMP TABLE endpoint (id pg_temp.number, tenant text, event_types text[], state text, filter jsonpath,
          rate_limit float8, ordered boolean, on_dead_letter text, url text, headers jsonb, transform text, secret text);
        """
      )
      for (number, trigger) in triggers.enumerated() {
        let attach =
          "CREATE TRIGGER t\(number) AFTER INSERT OR DELETE ON pg_temp.endpoint FOR EACH ROW EXECUTE FUNCTION \(trigger)"
        #expect(try await client.refusal(attach).sqlState == "42501", "\(trigger)")
      }
      try await client.execute(
        "INSERT INTO pg_temp.endpoint (id, state) VALUES ('1', 'enabled'); DELETE FROM pg_temp.endpoint"
      )
      #expect(try await owner.column("SELECT who FROM traces") == [])
      try await owner.execute("DROP OWNED BY \(role) CASCADE; DROP ROLE \(role)")
    }
  }

  @Test func shadowingObjectsAreNotRun() async throws {
    try await withDatabase { database in
      let owner = database.client()
      let role = "shadow_\(database.name)"
      try await owner.execute(
        """
        CREATE ROLE \(role) IN ROLE outbox_publisher, outbox_operator, outbox_dispatcher;
        CREATE SCHEMA shadow AUTHORIZATION \(role);
        CREATE TABLE traces (who text);
        GRANT INSERT ON traces TO \(role);
        GRANT TEMPORARY ON DATABASE \(database.name) TO \(role);
        """
      )
      let client = database.client()
      try await client.becomes(role)
      // Each of them would leave a trace of the rights it ran with.
      for (name, result) in [
        ("clock_timestamp()", "timestamptz"), ("date_part(text, timestamptz)", "float8"), ("gen_random_uuid()", "uuid"),
        ("substr(text, int)", "text"), ("nextval(regclass)", "bigint"), ("setting(text)", "text"),
        ("pg_current_xact_id()", "xid8"), ("uuid_v7()", "uuid"), ("format(text, text)", "text"),
      ] {
        for schema in ["shadow", "pg_temp"] {
          try await client.execute(
            """
            CREATE FUNCTION \(schema).\(name) RETURNS \(result) LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO public.traces VALUES (current_user); RETURN NULL; END $$
            """
          )
        }
      }
      try await client.execute(
        """
        CREATE FUNCTION shadow.times(float8, int) RETURNS float8 LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO public.traces VALUES (current_user); RETURN 0; END $$;
        CREATE OPERATOR shadow.* (LEFTARG = float8, RIGHTARG = int, FUNCTION = shadow.times);
        CREATE OPERATOR shadow.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = textcat);
        CREATE TEMP TABLE event (LIKE outbox.event);
        CREATE TEMP TABLE setting (name text, value text);
        CREATE TEMP TABLE subscription (tenant text, pattern text, endpoint_id bigint);
        SET search_path = shadow, pg_temp, pg_catalog, public;
        """
      )
      _ = try await client.rows("SELECT outbox.publish('t', '1')")
      try await client.execute("INSERT INTO outbox.event (type, payload) VALUES ('t', '2')")
      _ = try await client.rows("SELECT outbox.add_endpoint('https://example.com/hook')")
      _ = try await client.rows("SELECT * FROM outbox.maintain()")
      #expect(try await owner.column("SELECT who FROM traces") == [])
      #expect(try await owner.int("SELECT count(*) FROM outbox.subscription") == 1)
      let recent =
        "SELECT count(*) FROM outbox.event WHERE abs(extract(epoch FROM created_at - outbox.uuid_time(id))) < 1"
      #expect(try await owner.int(recent) == 2)
      try await owner.execute("DROP OWNED BY \(role); DROP ROLE \(role)")
    }
  }
}
