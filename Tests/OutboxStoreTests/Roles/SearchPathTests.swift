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
        SELECT proname, array_to_string(proconfig, ' ') FROM pg_proc
        WHERE pronamespace = 'outbox'::regnamespace AND prosecdef ORDER BY proname
        """
      )
      #expect(
        functions.map { $0[0] } == [
          "check_transform", "disable_for_filter", "forget_endpoint", "maintain", "prove", "prove_again",
          "publish", "subscribe_endpoint",
        ]
      )
      #expect(functions.allSatisfy { $0[1]?.contains("search_path=pg_catalog, pg_temp") == true })
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
