import Foundation
import Postgres
import Testing

/// Operators of one tenant, as login roles of their own: what they see, what they repair, and what they cannot find out about
/// others.
@Suite struct TenantTests {
  /// Two tenants, an operator of each, and of everything something: the first tenant's endpoint and event come first.
  fileprivate struct Scene {
    let database: Database
    let owner: Client
    let worker: Worker
    /// Endpoint ids by tenant.
    var endpoints: [String: Int64] = [:]
    var events: [String: String] = [:]
    var deadLetters: [String: String] = [:]

    func role(_ tenant: String) -> String { "op_\(tenant)_\(database.name)" }

    /// A session as that tenant's operator, who has logged in.
    func session(of tenant: String) -> Client { login(role(tenant)) }

    func login(_ role: String) -> Client {
      Client(database.url.replacing("postgres://postgres@", with: "postgres://\(role)@"))
    }
  }

  private func withTenants(_ body: (Scene) async throws -> Void) async throws {
    try await withDatabase { database in
      var scene = Scene(database: database, owner: database.client(), worker: try await Worker(database))
      let owner = scene.owner
      for tenant in ["acme", "rival"] {
        try await owner.execute("CREATE ROLE \(scene.role(tenant)) LOGIN")
        try await owner.execute("SELECT outbox.allow_tenant('\(scene.role(tenant))', '\(tenant)')")
        scene.endpoints[tenant] = Int64(
          try await owner.int("SELECT outbox.add_endpoint('https://\(tenant).example/hook', tenant => '\(tenant)')")
        )
        try await owner.execute(
          """
          INSERT INTO outbox.event (type, tenant, key, payload)
          SELECT 't', '\(tenant)', '\(tenant)-key', '{"of": "\(tenant)-payload"}' FROM generate_series(1, 3)
          """
        )
      }
      // Of each tenant one delivered, one dead and one waiting.
      let cut = try #require(try await scene.worker.cut())
      var place: [Int64: Int] = [:]
      let outcomes = cut.outcomes().map { delivered in
        var outcome = delivered
        place[outcome.delivery.endpoint, default: 0] += 1
        if place[outcome.delivery.endpoint] != 1 {
          outcome.kind = .failed
          outcome.status = 500
          outcome.error = "endpoint \(outcome.delivery.endpoint) said no"
          outcome.retryIn = .seconds(3600)
        }
        if place[outcome.delivery.endpoint] == 2 { outcome.reason = "exhausted" }
        return outcome
      }
      try await scene.worker.record(outcomes, finished: [cut.batch!])
      for tenant in ["acme", "rival"] {
        scene.deadLetters[tenant] = try await owner.value(
          "SELECT id FROM outbox.dead_letter WHERE tenant = '\(tenant)'"
        )
        scene.events[tenant] = try await owner.value(
          "SELECT min(id::text) FROM outbox.event WHERE tenant = '\(tenant)'"
        )
      }
      try await body(scene)
      for tenant in ["acme", "rival"] {
        try await owner.execute("DROP OWNED BY \(scene.role(tenant)); DROP ROLE \(scene.role(tenant))")
      }
    }
  }

  private static let views = [
    "attempt", "backlog", "dead_letter", "delivery", "delivery_status", "endpoint", "endpoint_key", "endpoint_status",
    "event",
    "stuck", "tenant",
  ]

  @Test func viewsShowWhatIsOnesOwn() async throws {
    try await withTenants { scene in
      let acme = scene.session(of: "acme")
      #expect(
        try await scene.owner.column(
          "SELECT relname FROM pg_class WHERE relnamespace = 'outbox_tenant'::regnamespace ORDER BY 1"
        )
          == Self.views
      )
      let expected = [
        "attempt": 3, "backlog": 1, "dead_letter": 1, "delivery": 1, "delivery_status": 3, "endpoint": 1,
        "endpoint_key": 1,
        "endpoint_status": 1, "event": 3, "stuck": 0, "tenant": 1,
      ]
      for view in Self.views {
        let rows = try await acme.column("SELECT to_jsonb(x)::text FROM outbox_tenant.\(view) x")
        #expect(rows.count == expected[view], "\(view): \(rows)")
        #expect(!rows.joined().contains("rival"), "\(view): \(rows)")
      }
      #expect(try await acme.column("SELECT payload ->> 'of' FROM outbox_tenant.dead_letter") == ["acme-payload"])
      // What is overdue appears for its own operator alone.
      try await scene.owner.execute("UPDATE outbox.delivery SET due_at = now() - interval '1 hour'")
      #expect(try await scene.owner.int("SELECT count(*) FROM outbox.stuck") == 2)
      #expect(try await acme.int("SELECT count(*) FROM outbox_tenant.stuck") == 1)
    }
  }

  @Test func repairsReachWhatIsOnesOwn() async throws {
    try await withTenants { scene in
      let acme = scene.session(of: "acme")
      let endpoint = scene.endpoints["acme"]!
      let letter = scene.deadLetters["acme"]!
      let event = scene.events["acme"]!
      for step in [
        "pause(\(endpoint))", "disable(\(endpoint))", "resume(\(endpoint))", "ping(\(endpoint))", "resend('\(event)')",
        "resend('\(event)', \(endpoint))", "discard(\(letter))", "redrive(\(letter))",
      ] {
        _ = try await acme.rows("SELECT outbox_tenant.\(step)")
      }
      #expect(
        try await acme.int("SELECT count(*) FROM outbox_tenant.explain('\(event)') WHERE endpoint_id = \(endpoint)") > 0
      )
      #expect(try await acme.int("SELECT count(*) FROM outbox_tenant.dead_letter") == 0)
      _ = try await acme.int("SELECT outbox_tenant.replay(\(endpoint), now() - interval '1 hour')")
      // Every event of the tenant, and the ping, and nobody else's.
      #expect(try await scene.owner.int("SELECT count(*) FROM outbox.delivery WHERE endpoint_id = \(endpoint)") == 4)
      #expect(try await scene.owner.int("SELECT count(*) FROM outbox.delivery") == 5)
      let rival = scene.session(of: "rival")
      #expect(try await rival.int("SELECT outbox_tenant.redrive_where()") == 1)
      #expect(try await scene.owner.int("SELECT count(*) FROM outbox.dead_letter") == 0)
    }
  }

  /// Refused in the very words in which something that does not exist is refused: not even that it exists can be told.
  @Test func whatIsSomebodyElsesDoesNotExist() async throws {
    try await withTenants { scene in
      let acme = scene.session(of: "acme")
      let before = try await scene.state()
      let (endpoint, letter, event) = (scene.endpoints["rival"]!, scene.deadLetters["rival"]!, scene.events["rival"]!)
      let own = scene.events["acme"]!
      for (call, theirs, nobodys) in [
        ("pause($)", "\(endpoint)", "999"), ("resume($)", "\(endpoint)", "999"), ("disable($)", "\(endpoint)", "999"),
        ("ping($)", "\(endpoint)", "999"), ("replay($, '-infinity')", "\(endpoint)", "999"),
        ("resend('\(own)', $)", "\(endpoint)", "999"), ("redrive($)", letter, "999"), ("discard($)", letter, "999"),
        ("resend('$')", event, "00000000-0000-7000-8000-000000000000"),
        ("resend('$', \(scene.endpoints["acme"]!))", event, "00000000-0000-7000-8000-000000000000"),
        ("explain('$')", event, "00000000-0000-7000-8000-000000000000"),
      ] {
        let errors = try await [theirs, nobodys].asyncMap { id in
          let error = try await acme.refusal("SELECT outbox_tenant.\(call.replacing("$", with: id))")
          #expect(error.sqlState == "P0002", "\(call): \(error)")
          return [error.message, error.detail, error.hint, error.context].map { ($0 ?? "").replacing(id, with: "$") }
        }
        #expect(errors[0] == errors[1], "\(call)")
      }
      for call in ["redrive_where(\(endpoint))", "redrive_where(reason => 'exhausted', endpoint => \(endpoint))"] {
        #expect(try await acme.int("SELECT outbox_tenant.\(call)") == 0)
      }
      #expect(try await scene.state() == before)
    }
  }

  @Test func nothingElseIsOpenToThem() async throws {
    try await withTenants { scene in
      let acme = scene.session(of: "acme")
      var statements = [
        "SELECT * FROM outbox.event", "SELECT outbox.redrive(1)", "SELECT outbox.allow_tenant(current_user, 'rival')",
        "INSERT INTO outbox.tenant_operator (role, tenant) VALUES (current_user, 'rival')",
        "CREATE TABLE outbox_tenant.t ()",
        "SELECT outbox_tenant.is_own('rival')", "SELECT outbox_tenant.require_endpoint(1)",
        "GRANT outbox_tenant_operator TO \(scene.role("rival"))", "SET ROLE outbox_operator",
        "SET ROLE \(scene.role("rival"))",
        "SET SESSION AUTHORIZATION \(scene.role("rival"))",
      ]
      // Views over one table could be written to, were that granted.
      for view in Self.views {
        statements += [
          "DELETE FROM outbox_tenant.\(view)", "INSERT INTO outbox_tenant.\(view) DEFAULT VALUES",
          "COPY outbox_tenant.\(view) FROM STDIN",
        ]
      }
      for statement in statements {
        let state = try await acme.refusal(statement).sqlState
        // No right; or a view that nobody could write to.
        #expect(state == "42501" || state == "55000" || state == "42809", "\(statement): \(state)")
      }
    }
  }

  /// A function that costs nothing is run before a condition that costs something, unless that is a barrier.
  @Test func functionsOfTheirOwnSeeNoForeignRow() async throws {
    try await withTenants { scene in
      let role = scene.role("acme")
      try await scene.owner.execute(
        "CREATE SCHEMA spy AUTHORIZATION \(role); GRANT TEMPORARY ON DATABASE \(scene.database.name) TO \(role)"
      )
      let acme = scene.session(of: "acme")
      try await acme.execute(
        """
        CREATE FUNCTION spy.look(x text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0000001 AS $$
        BEGIN
          IF x LIKE '%rival%' THEN RAISE EXCEPTION 'seen: %', x; END IF;
          RETURN true;
        END $$;
        CREATE OPERATOR spy.= (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq);
        CREATE FUNCTION pg_temp.pg_has_role(name, oid, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE FUNCTION spy.pg_has_role(name, oid, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE TEMP TABLE tenant_operator (role text, tenant text); INSERT INTO tenant_operator VALUES (current_user, 'rival');
        CREATE TEMP VIEW tenant AS SELECT 'rival' AS tenant;
        SET search_path = spy, pg_temp, outbox_tenant, pg_catalog;
        """
      )
      for view in Self.views {
        let text = "to_jsonb(x)::text"
        for condition in [
          "spy.look(\(text))", "spy.look(\(text)) OR random() > 2", "CASE WHEN spy.look(\(text)) THEN true END",
          "(\(text))::jsonb IS NOT NULL AND spy.look(\(text))",
          "1 / (CASE WHEN \(text) LIKE '%rival%' THEN 0 ELSE 1 END) = 1",
        ] {
          let rows = try await acme.column("SELECT \(text) FROM outbox_tenant.\(view) x WHERE \(condition)")
          #expect(!rows.joined().contains("rival"), "\(view): \(condition)")
        }
        // A plan may say how many rows there are, never what is in them.
        let plan = try await acme.column(
          "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM outbox_tenant.\(view) x WHERE spy.look(\(text))"
        )
        #expect(!plan.joined().contains("rival-payload") && !plan.joined().contains("rival-key"), "\(view)")
      }
      // A cast that fails repeats the value.
      let error = try await acme.refusal("SELECT payload::text::int FROM outbox_tenant.event")
      #expect(!"\(error)".contains("rival"), "\(error)")
      // Statistics of columns hold the commonest values.
      try await scene.owner.execute("ANALYZE outbox.event, outbox.endpoint, outbox.dead_letter")
      #expect(
        try await scene.owner.int(
          "SELECT count(*) FROM pg_stats WHERE schemaname = 'outbox' AND most_common_vals::text LIKE '%rival%'"
        ) > 0
      )
      #expect(try await acme.int("SELECT count(*) FROM pg_stats WHERE schemaname LIKE 'outbox%'") == 0)
    }
  }

  /// Who asks is the role whose rights a statement has, also after SET ROLE, by membership, and in a function of somebody else's.
  @Test func identityIsTheRoleInForce() async throws {
    try await withTenants { scene in
      let person = "person_\(scene.database.name)"
      try await scene.owner.execute(
        """
        CREATE ROLE \(person) LOGIN NOINHERIT; GRANT \(scene.role("acme")), \(scene.role("rival")) TO \(person);
        CREATE SCHEMA shared AUTHORIZATION \(scene.role("acme"));
        GRANT USAGE ON SCHEMA shared TO PUBLIC;
        """
      )
      let client = scene.login(person)
      #expect(try await client.refusal("SELECT tenant FROM outbox_tenant.tenant").sqlState == "42501")
      let (own, theirs) = (scene.endpoints["acme"]!, scene.endpoints["rival"]!)
      try await client.execute("SET ROLE \(scene.role("acme"))")
      #expect(try await client.column("SELECT tenant FROM outbox_tenant.event GROUP BY 1") == ["acme"])
      try await client.execute("SELECT outbox_tenant.pause(\(own))")
      #expect(try await client.refusal("SELECT outbox_tenant.pause(\(theirs))").sqlState == "P0002")
      try await client.execute("SET ROLE \(scene.role("rival"))")
      #expect(try await client.column("SELECT tenant FROM outbox_tenant.event GROUP BY 1") == ["rival"])
      try await client.execute("SELECT outbox_tenant.pause(\(theirs))")
      #expect(try await client.refusal("SELECT outbox_tenant.pause(\(own))").sqlState == "P0002")

      // Somebody else's function with its owner's rights shows what its owner may see, and repairs nothing by them.
      let acme = scene.session(of: "acme")
      try await acme.execute(
        """
        CREATE FUNCTION shared.tenants() RETURNS text[] LANGUAGE sql SECURITY DEFINER AS
        $$ SELECT array_agg(DISTINCT tenant) FROM outbox_tenant.event $$;
        CREATE FUNCTION shared.pause(e bigint) RETURNS void LANGUAGE sql SECURITY DEFINER AS $$ SELECT outbox_tenant.pause(e) $$;
        GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA shared TO PUBLIC;
        """
      )
      let rival = scene.session(of: "rival")
      #expect(try await rival.value("SELECT shared.tenants()") == "{acme}")
      #expect(try await rival.refusal("SELECT shared.pause(\(own))").sqlState == "P0002")
      #expect(try await scene.owner.value("SELECT shared.tenants()") == "{acme}")
      try await scene.owner.execute("DROP SCHEMA shared CASCADE; DROP OWNED BY \(person); DROP ROLE \(person)")
    }
  }

  /// An operator of everything may send an event elsewhere, or give an endpoint to somebody else: then neither side sees what
  /// belongs to both.
  @Test func whatBelongsToTwoTenantsIsSeenByNeither() async throws {
    try await withTenants { scene in
      let (own, event) = (scene.endpoints["acme"]!, scene.events["rival"]!)
      #expect(try await scene.owner.int("SELECT outbox.resend('\(event)', \(own))") == 1)
      for tenant in ["acme", "rival"] {
        let client = scene.session(of: tenant)
        for view in ["delivery", "delivery_status", "stuck", "attempt"] {
          let rows = "SELECT count(*) FROM outbox_tenant.\(view) WHERE endpoint_id = \(own) AND event_id = '\(event)'"
          #expect(try await client.int(rows) == 0, "\(tenant): \(view)")
        }
      }
      let rival = scene.session(of: "rival")
      let explained = try await rival.column("SELECT coalesce(url, '') FROM outbox_tenant.explain('\(event)')")
      #expect(!explained.isEmpty && !explained.joined().contains("acme"), "\(explained)")
      // An endpoint given away takes its dead letters out of sight.
      try await scene.owner.execute("UPDATE outbox.endpoint SET tenant = 'rival' WHERE id = \(own)")
      let acme = scene.session(of: "acme")
      #expect(try await acme.int("SELECT count(*) FROM outbox_tenant.dead_letter") == 0)
      #expect(try await acme.refusal("SELECT outbox_tenant.redrive(\(scene.deadLetters["acme"]!))").sqlState == "P0002")
      #expect(try await rival.int("SELECT count(*) FROM outbox_tenant.dead_letter") == 1)
      #expect(
        try await rival.refusal("SELECT outbox_tenant.redrive(\(scene.deadLetters["acme"]!))").sqlState == "P0002"
      )
    }
  }

  @Test func rightsAreGivenAndTakenByTheOwner() async throws {
    try await withTenants { scene in
      let owner = scene.owner
      let role = scene.role("acme")
      let acme = scene.session(of: "acme")
      try await owner.execute("SELECT outbox.allow_tenant('\(role)', 'rival')")
      #expect(try await acme.int("SELECT count(*) FROM outbox_tenant.event") == 6)
      // Of two tenants, and still not one's events to the other.
      let crossing = "SELECT outbox_tenant.resend('\(scene.events["acme"]!)', \(scene.endpoints["rival"]!))"
      #expect(try await acme.refusal(crossing).sqlState == "23514")
      try await owner.execute("SELECT outbox.forbid_tenant('\(role)', 'rival')")
      #expect(try await acme.int("SELECT count(*) FROM outbox_tenant.event") == 3)
      try await owner.execute("SELECT outbox.forbid_tenant('\(role)', 'acme')")
      #expect(try await acme.refusal("SELECT 1 FROM outbox_tenant.event").sqlState == "42501")
      for (arguments, state) in [
        ("'no such role', 'acme'", "42704"), ("'\(role)', NULL", "23514"), ("'\(role)', repeat('x', 256)", "23514"),
        ("'outbox_operator', 'acme'", "55000"), ("'outbox_dispatcher', 'acme'", "55000"),
      ] {
        #expect(try await owner.refusal("SELECT outbox.allow_tenant(\(arguments))").sqlState == state, "\(arguments)")
      }
      #expect(try await owner.refusal("SELECT outbox.forbid_tenant('\(role)', 'acme')").sqlState == "P0002")
      #expect(try await owner.int("SELECT count(*) FROM outbox.tenant_operator") == 1)
    }
  }

  /// A name that needs quoting is no way around.
  @Test func roleNamesAreTakenAsTheyAre() async throws {
    try await withTenants { scene in
      let owner = scene.owner
      let name = "Ops; \"x\" 'y' \(scene.database.name)"
      let quoted = "\"" + name.replacing("\"", with: "\"\"") + "\""
      try await owner.execute("CREATE ROLE \(quoted) LOGIN")
      _ = try await owner.rows("SELECT outbox.allow_tenant($1, $2)", [.text(name), .text("acme")])
      let client = scene.database.client()
      try await client.execute("SET SESSION AUTHORIZATION \(quoted)")
      #expect(try await client.int("SELECT count(*) FROM outbox_tenant.event") == 3)
      try await client.execute("SELECT outbox_tenant.pause(\(scene.endpoints["acme"]!))")
      _ = try await owner.rows("SELECT outbox.forbid_tenant($1, $2)", [.text(name), .text("acme")])
      try await owner.execute("DROP ROLE \(quoted)")
    }
  }

  /// Nothing that dispatchers use knows of tenants' operators: no policy, and no function that asks, so no plan
  /// that could differ.
  @Test func dispatchersAreNotTouched() async throws {
    try await withTenants { scene in
      let touched = """
        SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'outbox'::regnamespace
          AND (c.relrowsecurity OR c.relforcerowsecurity OR EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid))
        """
      let tables = try await scene.owner.column(touched)
      #expect(tables == [])
      // No function of schema outbox reads that schema, or who may what in it, but for the two that write it.
      let knowing = """
        SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'outbox'::regnamespace
          AND (p.prosrc LIKE '%outbox_tenant%' OR p.prosrc LIKE '%tenant_operator%') ORDER BY 1
        """
      #expect(try await scene.owner.column(knowing) == ["allow_tenant", "forbid_tenant"])
    }
  }
}

extension TenantTests.Scene {
  /// Everything that a repair changes.
  fileprivate func state() async throws -> [String] {
    try await owner.column(
      """
      SELECT 'd' || d.event_id || d.endpoint_id || d.due_at FROM outbox.delivery d
      UNION ALL SELECT 'l' || l.id || l.reason FROM outbox.dead_letter l
      UNION ALL SELECT 'e' || e.id || e.version FROM outbox.endpoint e
      UNION ALL SELECT 'v' || v.id FROM outbox.event v ORDER BY 1
      """
    )
  }
}

extension Array {
  fileprivate func asyncMap<Value>(_ transform: (Element) async throws -> Value) async throws -> [Value] {
    var values: [Value] = []
    for element in self { values.append(try await transform(element)) }
    return values
  }
}
