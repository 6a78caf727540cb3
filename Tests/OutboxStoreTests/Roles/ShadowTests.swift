import Foundation
import Testing

/// Every function and operator that the schema's own functions use, made anew in a schema of the caller's that comes first in
/// its `search_path`, and temporary tables and types with the names of ours: none of them is run or read, whoever calls what.
@Suite(.serialized) struct ShadowTests {
  @Test(arguments: ["outbox_publisher", "outbox_operator", "outbox_dispatcher", "outbox_tenant_operator"])
  func callersObjectsAreNotRun(role: String) async throws {
    try await withDatabase { database in
      let owner = database.client()
      let caller = "caller_\(database.name)"
      try await prepare(database, caller: caller, role: role)
      let client = database.client()
      try await client.becomes(caller)
      try await client.execute(Self.temporaryObjects)
      try await client.execute("SET search_path = shadow, pg_temp, public, pg_catalog")
      for statement in try await statements(of: role, owner) {
        _ = try await client.rows(statement)
      }
      #expect(try await owner.rows("SELECT who, what FROM public.traces") == [])
      // They would leave traces: called by their names they do.
      try await client.execute("SELECT lower('a'::pg_catalog.text), now()")
      #expect(try await owner.column("SELECT what FROM public.traces ORDER BY 1") == ["lower(text)", "now()"])
      try await owner.execute("DROP OWNED BY \(caller) CASCADE; DROP ROLE \(caller)")
    }
  }

  /// A function without a path of its own is read with the caller's. Those few are read anew in each statement, for speed, and
  /// so name the schema of everything in them.
  @Test func everyFunctionFixesItsSearchPathOrNamesEverySchema() async throws {
    try await withDatabase { database in
      let owner = database.client()
      let unpinned = try await owner.column(
        """
        SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname IN ('outbox', 'outbox_tenant')
          AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false) ORDER BY 1
        """
      )
      #expect(
        unpinned == [
          "outbox.filter_document(text,text,text,jsonb,jsonb)", "outbox.lock_number(bigint)",
          "outbox.may_be_packed(bigint,text,integer,text,text)", "outbox.uuid_second(uuid)", "outbox.uuid_v7()",
        ]
      )
      // With nothing to be found but what is named in full, they still work.
      let caller = "caller_\(database.name)"
      try await prepare(database, caller: caller, role: "outbox_dispatcher")
      try await owner.execute("SET search_path = shadow, pg_temp, pg_catalog")
      #expect(try await owner.value("SELECT outbox.lock_number(2147483648)") == "1")
      #expect(try await owner.value("SELECT outbox.uuid_v7()")?.count == 36)
      #expect(try await owner.value("SELECT outbox.uuid_second('00000000-03e8-7000-8000-000000000000')") == "1")
      #expect(try await owner.value("SELECT outbox.may_be_packed(1, 'delivered', 1, NULL, NULL)") == "t")
      #expect(
        try await owner.value("SELECT outbox.filter_document('t', '', NULL, '1', '{}')")?.contains("payload") == true
      )
      #expect(try await owner.rows("SELECT who, what FROM public.traces") == [])
      try await owner.execute("DROP OWNED BY \(caller) CASCADE; DROP ROLE \(caller)")
    }
  }

  private static let temporaryObjects = """
    DO $$ DECLARE name text; BEGIN
      FOR name IN SELECT c.relname FROM pg_catalog.pg_class c WHERE c.relnamespace = 'outbox'::pg_catalog.regnamespace
          AND c.relkind IN ('r', 'p', 'v') AND c.relname !~ '_[0-9]{8}$' LOOP
        EXECUTE pg_catalog.format('CREATE TEMP TABLE %I (like_ours boolean)', name);
      END LOOP;
    END $$;
    CREATE TEMP TABLE pg_roles (rolname text); CREATE TEMP TABLE pg_class (relname text); CREATE TEMP TABLE pg_settings (name text);
    CREATE DOMAIN pg_temp.uuid AS text; CREATE DOMAIN pg_temp.timestamptz AS text; CREATE DOMAIN pg_temp.jsonb AS text;
    CREATE DOMAIN pg_temp.int8 AS text; CREATE DOMAIN pg_temp.text AS pg_catalog.int4;
    """

  /// Makes the role, and in its schema `shadow` what it would want to have run in place of ours.
  private func prepare(_ database: Database, caller: String, role: String) async throws {
    let owner = database.client()
    try await owner.execute(
      """
      CREATE ROLE \(caller) IN ROLE \(role);
      CREATE SCHEMA shadow AUTHORIZATION \(caller);
      GRANT TEMPORARY ON DATABASE \(database.name) TO \(caller);
      CREATE TABLE public.traces (who text, what text);
      GRANT INSERT ON public.traces TO PUBLIC;
      GRANT USAGE ON SCHEMA shadow TO PUBLIC;
      SET ROLE \(caller);
      SET client_min_messages = error; SET check_function_bodies = off;
      DO $$
      DECLARE
        f record;
        made int := 0;
        names CONSTANT text[] := ARRAY(
          SELECT DISTINCT m.words[1] FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace,
            regexp_matches(p.prosrc, '(\\w+)\\s*\\(', 'g') m(words) WHERE n.nspname IN ('outbox', 'outbox_tenant'));
        body CONSTANT text := 'BEGIN INSERT INTO public.traces VALUES (current_user, %L); RETURN NULL; END';
      BEGIN
        FOR f IN
          SELECT p.proname AS name, p.oid::regprocedure::text AS signature, oidvectortypes(p.proargtypes) AS arguments,
                 format_type(p.prorettype, NULL) AS result, p.proretset
          FROM pg_proc p
          WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.proname = ANY (names)
            AND NOT p.proargtypes::oid[] && ARRAY['internal'::regtype::oid, 'cstring'::regtype, '"any"'::regtype]
            AND p.prorettype NOT IN ('internal'::regtype, 'cstring'::regtype, 'trigger'::regtype, 'record'::regtype, 'void'::regtype, '"any"'::regtype)
            AND p.provariadic = 0
        LOOP
          EXECUTE format('CREATE FUNCTION shadow.%I(%s) RETURNS %s %s LANGUAGE plpgsql AS %L', f.name, f.arguments,
            CASE WHEN f.proretset THEN 'SETOF' ELSE '' END, f.result,
            CASE WHEN f.proretset THEN format('BEGIN INSERT INTO public.traces VALUES (current_user, %L); RETURN; END', f.signature)
                 ELSE format(body, f.signature) END);
          made := made + 1;
        END LOOP;
        FOR f IN
          SELECT o.oprname AS name, o.oid::regoperator::text AS signature, o.oprleft::regtype::text AS l, o.oprright::regtype::text AS r,
                 o.oprresult::regtype::text AS result, o.oid AS id
          FROM pg_operator o
          WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprkind = 'b'
            AND o.oprname IN ('=', '<>', '<', '>', '<=', '>=', '+', '-', '*', '/', '%', '||', '~', '!~', '~*', '!~*', '~~', '!~~', '->>', '->', '#>>', '&&', '@>')
            AND (SELECT bool_and(t.typtype = 'b') FROM pg_type t WHERE t.oid IN (o.oprleft, o.oprright))
        LOOP
          EXECUTE format('CREATE FUNCTION shadow.op_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', f.id, f.l, f.r, f.result, format(body, f.signature));
          EXECUTE format('CREATE OPERATOR shadow.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = shadow.op_%s)', f.name, f.l, f.r, f.id);
          made := made + 1;
        END LOOP;
        ASSERT made > 300, 'too few shadows: ' || made;
      END $$;
      RESET ROLE;
      """
    )
  }

  /// Everything that role may call, without an operator or a function of PostgreSQL's own in the call.
  private func statements(of role: String, _ owner: Client) async throws -> [String] {
    let endpoint = try await owner.addEndpoint("rate_limit => 1000, filter => '$.payload.n > 0', tenant => 'acme'")
    let other = try await owner.addEndpoint("ordered => true, tenant => 'acme'")
    try await owner.execute(
      """
      INSERT INTO outbox.event (type, tenant, key, payload) VALUES ('t', 'acme', 'k', '{"n": 1}'), ('t', 'acme', 'k', '{"n": 2}');
      """
    )
    let event = try await owner.value("SELECT min(id::text) FROM outbox.event") ?? ""
    let letter =
      "INSERT INTO outbox.dead_letter (event_id, endpoint_id, url, type, tenant, key, payload, created_at, attempts, reason)"
    try await owner.execute(
      "\(letter) SELECT id, \(endpoint), 'https://example.com', type, tenant, key, payload, created_at, 1, 'exhausted' FROM outbox.event"
    )
    let letters = try await owner.column("SELECT id FROM outbox.dead_letter ORDER BY 1")
    let repairs = [
      "redrive(\(letters[0]))", "discard(\(letters[1]))", "redrive_where(\(endpoint), 'discarded')",
      "pause(\(endpoint))",
      "resume(\(endpoint))", "disable(\(endpoint))", "resume(\(endpoint))", "ping(\(endpoint))", "resend('\(event)')",
      "replay(\(endpoint), '-infinity')", "explain('\(event)')",
    ]
    switch role {
    case "outbox_publisher":
      return [
        "SELECT outbox.publish('t', '1', 'k', 'acme')", "SELECT outbox.publish('t', '1', dedup_key => 'd')",
        "SELECT outbox.publish('t', '1', dedup_key => 'd')",
        "INSERT INTO outbox.event (type, payload, metadata) VALUES ('t', '1', '{}')",
      ]
    case "outbox_operator":
      return [
        "SELECT outbox.add_endpoint('https://example.com/', rate_limit => 5, headers => '{\"X-A\": \"b\"}', filter => '$.payload.n > 1')",
        "UPDATE outbox.endpoint SET event_types = '{a.*}', max_attempts = 3",
        "SELECT outbox.rotate_secret(\(endpoint))",
        "SELECT outbox.set_basic_auth(\(endpoint), 'a', 'b')", "SELECT outbox.set_bearer_token(\(endpoint), 'b')",
        "SELECT outbox.set_oauth2(\(endpoint), 'https://example.com/t', 'a', 'b')",
        "SELECT outbox.clear_credential(\(endpoint))",
        "SELECT outbox.reconcile()", "SELECT outbox.repair()", "SELECT outbox.conservation('-infinity')",
        "SELECT outbox.maintain()",
        "SELECT outbox.recover()", "SELECT outbox.waiting()", "SELECT outbox.retry_schedule(\(endpoint))",
        "SELECT outbox.anchor_problem()", "SELECT outbox.transform_problem('a.b')",
        "SELECT outbox.delete_endpoint(\(other), true)",
        "SELECT * FROM outbox.backlog", "SELECT * FROM outbox.delivery_status", "SELECT * FROM outbox.endpoint_status",
      ] + repairs.map { "SELECT outbox.\($0)" }
    case "outbox_dispatcher":
      let dispatcher = try await owner.int("SELECT outbox.register('n', 'h', 1, 'v', '1 hour')")
      let none = "'{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'"
      let failed = """
        '{\(event)}', '{\(endpoint)}', '{NULL}', '{1}', '{failed}', '{410}', '{1}', '{gone}', '{x}', '{0}', '{gone}', '{}'
        """
      return [
        "SELECT outbox.cut(\(dispatcher), 10, 0, 10, 100000)", "SELECT outbox.cut(\(dispatcher), 10, 10, 10, 100000)",
        "SELECT outbox.claim(\(dispatcher), '{\(endpoint),\(other)}', '{5,5}', '{NULL,NULL}')",
        "SELECT outbox.record(\(dispatcher), \(failed))", "SELECT outbox.record(\(dispatcher), \(none))",
        "SELECT outbox.waiting()", "SELECT outbox.watch('', 0.001, 2)",
        "SELECT outbox.heartbeat(\(dispatcher))", "SELECT outbox.resync(\(dispatcher), '{}', '{}', 1)",
        "SELECT outbox.maintain()",
        "SELECT outbox.stamp_subscriptions()", "SELECT outbox.reconcile()",
        "SELECT outbox.unsealed_secrets('a', 0, 0, 9)",
        "SELECT outbox.unsealed_credentials('a', 0, '', 9)",
        "SELECT outbox.disable_for_filter(\(other), 'slow', 'now')",
        "SELECT outbox.recover()", "SELECT outbox.release(\(dispatcher))",
      ]
    default:
      try await owner.execute(
        "SELECT outbox.allow_tenant(r.rolname, 'acme') FROM pg_roles r WHERE r.rolname = 'caller_' || current_database()"
      )
      return repairs.map { "SELECT outbox_tenant.\($0)" }
        + ["event", "delivery", "attempt", "dead_letter", "delivery_status", "endpoint_status"].map {
          "SELECT * FROM outbox_tenant.\($0)"
        }
    }
  }
}
