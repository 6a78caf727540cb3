import Foundation
import Receiver
import TestSupport
import Testing

/// What an operator types, what he is told, and the exit status a script sees.
@Suite struct CommandTests {
  @Test func helpAndWrongFlags() async throws {
    let help = try await MartletProcess.run("--help")
    #expect(help.status == 0)
    for command in ["migrate", "dispatch", "reconcile", "endpoint", "event", "dead", "receive", "demo", "bench"] {
      #expect(help.output.contains(command))
      #expect(try await MartletProcess.run(command, "--help").status == 0)
    }
    let wrong = try await MartletProcess.run("dispatch", "--no-such-flag")
    #expect(wrong.status == 64)
    #expect(wrong.errors.contains("--no-such-flag"))
    #expect(try await MartletProcess.run("dispatch", "--allow-network", "10.0.0.1/8").errors.contains("10.0.0.0/8"))
    #expect(try await MartletProcess.run("dispatch", "--max-in-flight", "0").status == 64)
    #expect(try await MartletProcess.run("dead", "redrive").status == 64)
    #expect(try await MartletProcess.run("event", "show", "x").errors.contains("not an event's id"))
  }

  @Test func anUnreachableDatabaseIsNamedWithTheRemedy() async throws {
    for arguments in [["dispatch"], ["migrate"], ["endpoint", "list"]] {
      let result = try await MartletProcess.run(arguments + ["--database-url", "postgres://u:hidden@127.0.0.1:1/x"])
      #expect(result.status == 1)
      #expect(result.errors.contains("--database-url"))
      #expect(!result.errors.contains("hidden"))
    }
    let reconcile = try await MartletProcess.run("reconcile", "--json", "--database-url", "postgres://127.0.0.1:1/x")
    #expect(reconcile.status == 2)
    #expect(reconcile.output.contains("could_not_check"))
  }

  @Test func aMissingAnOldAndANewerSchemaAreToldApart() async throws {
    let database = try await TestDatabase.make(migrated: false)
    let url = ["--database-url", database.connectionString]
    #expect(try await MartletProcess.run(["endpoint", "list"] + url).errors.contains("martlet migrate"))
    #expect(try await MartletProcess.run(["event", "publish", "a", "{}"] + url).errors.contains("martlet migrate"))
    #expect(try await MartletProcess.run(["migrate", "--status"] + url).output.contains("schema: none"))
    #expect(try await MartletProcess.run(["migrate", "--dry-run"] + url).output.contains("CREATE TABLE outbox.event"))
    #expect(try await MartletProcess.run(["migrate", "--status"] + url).output.contains("schema: none"))
    #expect(try await MartletProcess.run(["migrate"] + url).status == 0)
    #expect(try await MartletProcess.run(["migrate"] + url).output.contains("up to date"))
    try await database.execute("INSERT INTO outbox.migration (version, name) VALUES (1000, 'tomorrow')")
    for command in [["migrate"], ["dispatch"], ["endpoint", "list"]] {
      let result = try await MartletProcess.run(command + url)
      #expect(result.status == 1)
      #expect(result.errors.contains("newer"))
    }
    try await database.execute("DELETE FROM outbox.migration WHERE version > 5")
    #expect(try await MartletProcess.run(["endpoint", "list"] + url).errors.contains("martlet migrate"))
  }

  @Test func endpointsAreManagedAndMistakesExplained() async throws {
    let database = try await TestDatabase.make()
    let environment = ["DATABASE_URL": database.connectionString]
    func martlet(_ arguments: String...) async throws -> MartletProcess.Result {
      try await MartletProcess.run(arguments, environment: environment)
    }
    for (url, word) in [
      ("ftp://example.com/", "https"), ("https://user:pw@example.com/", "user"), ("https://", "host"),
      ("https://10.1.2.3/", "--allow-network"), ("http://example.com/", "--allow-http"), ("https://a b/", "space"),
    ] {
      let result = try await martlet("endpoint", "add", url)
      #expect(result.status == 1, "\(url)")
      #expect(result.errors.contains(word), "\(url): \(result.errors)")
    }
    #expect(try await martlet("endpoint", "add", "https://example.com/", "--header", "X: a\r\nb").status == 1)
    #expect(try await martlet("endpoint", "add", "https://example.com/", "--header", "Host: b").status == 1)
    #expect(try await martlet("endpoint", "add", "https://example.com/", "--type", "or*").status == 1)
    for (filter, word) in [("$.payload.n >", "syntax error"), ("$.payload.n > $x", "variable")] {
      let result = try await martlet("endpoint", "add", "https://example.com/", "--filter", filter)
      #expect(result.status == 1 && result.errors.contains(word), "\(filter): \(result.errors)")
    }
    #expect(try await martlet("endpoint", "list").output.contains("There are no endpoints"))

    let added = try await martlet(
      "endpoint",
      "add",
      "https://example.com/hook",
      "--type",
      "order.*",
      "--filter",
      "$.payload.n > 1",
      "--json"
    )
    #expect(added.status == 0)
    let object = try #require(try JSONSerialization.jsonObject(with: Data(added.output.utf8)) as? [String: Any])
    let id = "\(try #require(object["id"] as? Int))"
    #expect((object["secret"] as? String)?.hasPrefix("whsec_") == true)
    #expect(try await martlet("endpoint", "list").output.contains("https://example.com/hook"))
    #expect(try await martlet("endpoint", "pause", id).output.contains("paused"))
    let shown = try await martlet("endpoint", "show", id).output
    #expect(shown.contains("state: paused") && shown.contains(#"filter: ($."payload"."n" > 1)"#))
    #expect(shown.contains("filter failures: 0") && shown.contains("filter error: -"))
    #expect(
      try await martlet("endpoint", "show", id, "--json").output.contains(#""filter":"($.\"payload\".\"n\" > 1)""#)
    )
    #expect(try await martlet("endpoint", "resume", id).status == 0)
    #expect(try await martlet("endpoint", "disable", id).status == 0)
    let rotated = try await martlet("endpoint", "rotate-secret", id)
    #expect(rotated.output.contains("whsec_"))
    for verb in ["pause", "resume", "disable", "show", "rotate-secret"] {
      let unknown = try await martlet("endpoint", verb, "4711")
      #expect(unknown.status == 1)
      #expect(unknown.errors.contains("no endpoint 4711"))
    }
    let list = try await martlet("endpoint", "list", "--json")
    #expect((try JSONSerialization.jsonObject(with: Data(list.output.utf8)) as? [[String: Any]])?.count == 1)
    #expect(!list.output.contains("whsec_"))
  }

  @Test func eventsAndDeadLettersAreShownRedrivenAndDiscarded() async throws {
    let database = try await TestDatabase.make()
    let environment = ["DATABASE_URL": database.connectionString]
    func martlet(_ arguments: String...) async throws -> MartletProcess.Result {
      try await MartletProcess.run(arguments, environment: environment)
    }
    let listener = try await Listener { _, _ in Reply(status: 400, body: "wrong shape") }
    _ = try await database.addEndpoint(listener.url(), options: "max_attempts => 1")
    for (type, payload) in [("", "{}"), ("order created", "{}"), ("a", "{"), ("a", #"{"x": "\u0000"}"#)] {
      let refused = try await martlet("event", "publish", type, payload)
      #expect(refused.status == 1)
      #expect(refused.errors.contains("refused"), "\(refused.errors)")
    }
    let published = try await martlet(
      "event",
      "publish",
      "order.created",
      #"{"n": 1}"#,
      "--key",
      "o-1",
      "--dedup-key",
      "d"
    )
    let id = published.output.trimmingCharacters(in: .whitespacesAndNewlines)
    let again = try await martlet(
      "event",
      "publish",
      "order.created",
      #"{"n": 2}"#,
      "--dedup-key",
      "d",
      "--dedup-window",
      "1 h"
    )
    #expect(again.output == published.output)
    for (window, word) in [("31 days", "30 days"), ("soon", "interval")] {
      let refused = try await martlet("event", "publish", "a", "{}", "--dedup-key", "d", "--dedup-window", window)
      #expect(refused.status == 1 && refused.errors.contains(word), "\(refused.errors)")
    }
    #expect(try await martlet("event", "show", id).output.contains("not cut yet"))
    let dispatcher = try MartletProcess.dispatcher(database)
    try await eventually("it is dead") { try await database.int("SELECT count(*) FROM outbox.dead_letter") == 1 }
    #expect(try await martlet("event", "show", id).output.contains("wrong shape"))
    #expect(try await martlet("event", "show", UUID().uuidString).errors.contains("no event"))
    #expect(try await martlet("dead", "list").output.contains("exhausted"))
    #expect(try await martlet("dead", "show", "1").output.contains(#"{"n": 1}"#))
    #expect(try await martlet("dead", "show", "99").errors.contains("no dead letter 99"))
    #expect(try await martlet("dead", "redrive", "99").status == 1)
    #expect(try await martlet("dead", "redrive", "1").output.contains("1 back to delivery"))
    try await eventually("it is dead again") {
      try await database.int("SELECT count(*) FROM outbox.dead_letter WHERE id > 1") == 1
    }
    let reconciled = try await martlet("reconcile")
    #expect(reconciled.status == 1)
    #expect(reconciled.output.contains("dead letters"))
    #expect(try await martlet("dead", "discard", "2").status == 0)
    #expect(try await martlet("dead", "list").output.contains("There are no dead letters"))
    #expect(try await martlet("dead", "redrive", "--all").output.contains("0 back"))
    try await database.execute("UPDATE outbox.endpoint_health SET consecutive_failures = 0, failing_since = NULL")
    let healthy = try await martlet("reconcile", "--json")
    #expect(healthy.status == 0, "\(healthy.output)")
    dispatcher.signal(SIGTERM)
    #expect(await dispatcher.waitForExit() == 0)
    #expect(try await martlet("reconcile").output.contains("no live dispatcher"))
  }

  @Test func aTakenPortIsNamed() async throws {
    let listener = try await Listener()
    let result = try await MartletProcess.run("receive", "--port", "\(listener.port)")
    #expect(result.status == 1)
    #expect(result.errors.contains("\(listener.port)"))
    #expect(result.errors.contains("--port"))
  }

  /// In processes of their own, as the environment and standard error belong to all tests.
  @Test func theEnvironmentCompletesWhatIsNotGiven() async throws {
    let database = try await TestDatabase.make()
    let name = String(database.connectionString.split(separator: "/").last!)
    let environment = [
      "PGHOST": "127.0.0.1", "PGPORT": "\(database.server.port)", "PGUSER": "postgres", "PGDATABASE": name,
      "PGAPPNAME": "by environment",
    ]
    let listed = try await MartletProcess.run("endpoint", "list", environment: environment)
    #expect(listed.status == 0, "\(listed.errors)")
    var elsewhere = environment
    elsewhere["PGDATABASE"] = "nowhere"
    #expect(try await MartletProcess.run("endpoint", "list", environment: elsewhere).status == 1)
    let given = try await MartletProcess.run(
      "endpoint",
      "list",
      "--database-url",
      "postgres:///\(name)",
      environment: elsewhere
    )
    #expect(given.status == 0, "\(given.errors)")
    var standby = environment
    standby["PGTARGETSESSIONATTRS"] = "standby"
    #expect(try await MartletProcess.run("endpoint", "list", environment: standby).status == 1)
  }

  @Test func noticesOfTheServerAreNotPrinted() async throws {
    let database = try await TestDatabase.make()
    try await database.execute(
      """
      CREATE FUNCTION chat() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE WARNING 'the server warns'; RAISE NOTICE 'the server notes'; RETURN NEW; END $$;
      CREATE TRIGGER chat BEFORE INSERT ON outbox.event_default FOR EACH ROW EXECUTE FUNCTION chat();
      CREATE TRIGGER chat BEFORE INSERT ON outbox.endpoint FOR EACH ROW EXECUTE FUNCTION chat();
      """
    )
    let added = try await MartletProcess.run(
      "endpoint",
      "add",
      "https://example.com/",
      "--database-url",
      database.connectionString
    )
    #expect(added.status == 0)
    #expect(added.errors.isEmpty)
  }

  @Test func reconcileSendsWhatIsMissingWhenToldTo() async throws {
    let database = try await TestDatabase.make()
    let environment = ["DATABASE_URL": database.connectionString]
    _ = try await database.addEndpoint("https://example.com/")
    try await database.execute("SELECT outbox.stamp_subscriptions()")
    try await database.execute("SELECT outbox.register('test', 'here', 1, '0', '1 h')")
    try await database.publish(3)
    try await database.execute("SELECT * FROM outbox.cut(1, 100, 0, 0, 1000)")
    let event = try await database.rows("SELECT min(event_id::text) FROM outbox.delivery")[0][0]!
    try await database.execute("DELETE FROM outbox.delivery WHERE event_id = '\(event)'")
    let found = try await MartletProcess.run("reconcile", environment: environment)
    #expect(found.status == 1 && found.output.contains("martlet reconcile --repair"))
    let repaired = try await MartletProcess.run("reconcile", "--repair", environment: environment)
    #expect(repaired.status == 0, "\(repaired.output)")
    #expect(repaired.output.contains("INFO: repaired: event \(event), endpoint 1"))
    #expect(try await database.int("SELECT count(*) FROM outbox.delivery") == 3)
  }

  @Test func settingsAreGivenChangedAndTakenAway() async throws {
    let database = try await TestDatabase.make()
    let environment = ["DATABASE_URL": database.connectionString]
    func martlet(_ arguments: String...) async throws -> MartletProcess.Result {
      try await MartletProcess.run(arguments, environment: environment)
    }
    let added = try await martlet(
      "endpoint",
      "add",
      "https://example.com/",
      "--filter",
      "$.payload.total > 100",
      "--retry-delays",
      "10 s, 1 h",
      "--rate-limit",
      "5",
      "--ordered",
      "--on-dead-letter",
      "hold",
      "--header",
      "X-Shop: a:b",
      "--timeout",
      "20",
      "--format",
      "cloudevents-binary",
      "--failure-rate",
      "0.2",
      "--disable-after",
      "3 days",
      "--tenant",
      "t"
    )
    #expect(added.status == 0, "\(added.errors)")
    let columns = """
      filter, retry_delays, rate_limit, ordered, on_dead_letter, headers, timeout, format, failure_rate, disable_after, tenant
      """
    #expect(
      try await database.rows("SELECT \(columns) FROM outbox.endpoint") == [
        [
          #"($."payload"."total" > 100)"#, "{00:00:10,01:00:00}", "5", "t", "hold", #"{"X-Shop": "a:b"}"#, "00:00:20",
          "cloudevents-binary", "0.2", "3 days", "t",
        ]
      ]
    )
    let changed = try await martlet(
      "endpoint",
      "set",
      "1",
      "--no",
      "filter",
      "--no",
      "headers",
      "--no",
      "retry-delays",
      "--no-ordered",
      "--jitter",
      "0",
      "--url",
      "https://example.org/"
    )
    #expect(changed.status == 0, "\(changed.errors)")
    #expect(
      try await database.rows(
        "SELECT filter, headers, retry_delays, ordered, jitter, url, rate_limit FROM outbox.endpoint"
      )
        == [[nil, "{}", nil, "f", "0", "https://example.org/", "5"]]
    )
    for (mistake, words) in [
      (["--filter", "$.payload.total >"], "jsonpath"), (["--rate-limit", "0"], "rate_limit"),
      (["--jitter", "2"], "jitter"),
      (["--disable-after", "whenever"], "interval"), (["--format", "xml"], "format"), ([], "--help"),
      (["--no", "jitter"], "rate-limit"), (["--rate-limit", "1", "--no", "rate-limit"], "contradicts"),
      (["--url", "ftp://example.com/"], "URL"), (["--transform", "a.b"], "a.b(outbox.event)"),
    ] {
      let result = try await MartletProcess.run(["endpoint", "set", "1"] + mistake, environment: environment)
      #expect(result.status != 0 && result.errors.contains(words), "\(mistake): \(result.errors)")
    }
    #expect(try await martlet("endpoint", "set", "9", "--jitter", "0").errors.contains("no endpoint 9"))
  }

  @Test func endpointsArePingedReplayedToAndDeleted() async throws {
    let database = try await TestDatabase.make()
    let environment = ["DATABASE_URL": database.connectionString]
    func martlet(_ arguments: String...) async throws -> MartletProcess.Result {
      try await MartletProcess.run(arguments, environment: environment)
    }
    let listener = try await Listener { arrival, _ in arrival.path == "/bad" ? Reply(status: 500) : .ok }
    _ = try await database.addEndpoint(listener.url("/good"), types: "{order.*}")
    _ = try await database.addEndpoint(listener.url("/bad"), types: "{none}")
    let dispatcher = try MartletProcess.dispatcher(database)
    let good = try await martlet("endpoint", "ping", "1")
    #expect(good.status == 0, "\(good.errors)")
    #expect(good.output.contains("delivered: status 200"))
    #expect(try await martlet("endpoint", "ping", "2").errors.contains("the endpoint answered 500"))
    #expect(try await martlet("endpoint", "ping", "9").errors.contains("no endpoint 9"))

    try await database.publish(3)
    try await eventually("all have arrived") { listener.accepted("/good").count == 4 }
    try await eventually("all is recorded") { try await database.int("SELECT count(*) FROM outbox.batch") == 0 }
    let replayed = try await martlet("event", "replay", "--endpoint", "1", "--since", "yesterday", "--type", "order.*")
    #expect(replayed.output.contains("3 back to delivery"), "\(replayed.errors)")
    try await eventually("all have arrived again") { listener.accepted("/good").count == 7 }
    let id = listener.accepted("/good").last!.id
    try await eventually("all is recorded") {
      try await database.int("SELECT count(*) FROM outbox.delivery WHERE endpoint_id = 1") == 0
    }
    #expect(try await martlet("event", "resend", id).output.contains("1 back to delivery"))
    #expect(try await martlet("event", "replay", "--endpoint", "1", "--since", "when?").status == 1)
    #expect(try await martlet("event", "resend", UUID().uuidString).errors.contains("no event"))

    #expect(try await martlet("endpoint", "delete", "2").errors.contains("--discard-waiting"))
    #expect(
      try await martlet("endpoint", "delete", "2", "--discard-waiting").output.contains("1 deliveries are dead letters")
    )
    dispatcher.signal(SIGTERM)
    #expect(await dispatcher.waitForExit() == 0)
  }

  /// What an operator at three in the morning must not be told wrongly.
  @Test func mistakesAreToldApart() async throws {
    let database = try await TestDatabase.make()
    let environment = ["DATABASE_URL": database.connectionString]
    func martlet(_ arguments: String...) async throws -> MartletProcess.Result {
      try await MartletProcess.run(arguments, environment: environment)
    }
    #expect(try await martlet("endpoint", "list", "--database-url", "").status == 64)
    let nowhere = "postgres://postgres@127.0.0.1:\(database.server.port)/nowhere"
    #expect(try await martlet("endpoint", "list", "--database-url", nowhere).errors.contains("createdb"))
    #expect(try await martlet("dead", "list", "--limit", "0").status == 64)
    #expect(try await martlet("endpoint", "add", "https://example.com/", "--max-attempts", "0").status == 1)
    #expect(try await martlet("endpoint", "rotate-secret", "1", "--overlap-hours=-1").status == 64)
    #expect(try await martlet("dispatch", "--ca-file", #filePath).status == 64)
    let unknown = try await martlet("event", "show", UUID().uuidString)
    #expect(unknown.status == 1 && unknown.output.isEmpty)
    let deep = String(repeating: "[", count: 50_000) + String(repeating: "]", count: 50_000)
    #expect(try await martlet("event", "publish", "a", deep).errors.contains("nested too deeply"))
    #expect(try await martlet("reconcile", "--since", "yesteryear").status == 2)
    #expect(try await martlet("reconcile", "--since", "7 days").output.contains("conservation"))
    #expect(try await martlet("reconcile", "--since", "1 day", "--until", "yesteryear").status == 2)
    let empty = try await martlet("reconcile", "--since", "1 day", "--until", "2 days")
    #expect(empty.status == 2 && empty.errors.contains("the period is empty"))
  }

  /// A period with two ends, as people and as programs read it; and the repair of what is missing in it, and nothing else.
  @Test func reconcileProvesAPeriodAndRepairsIt() async throws {
    let database = try await TestDatabase.make()
    let environment = ["DATABASE_URL": database.connectionString]
    func martlet(_ arguments: String...) async throws -> MartletProcess.Result {
      try await MartletProcess.run(["reconcile"] + arguments, environment: environment)
    }
    func counts(_ arguments: String...) async throws -> [String: Int] {
      let json = try await MartletProcess.run(["reconcile", "--json"] + arguments, environment: environment).output
      let findings = try #require(try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [[String: Any]])
      let figures = try #require(findings.compactMap { $0["figures"] as? [String: Any] }.first)
      return figures.compactMapValues { $0 as? Int }
    }
    let session = try await database.newSession()
    try await session.withConnection { connection in
      for statement in [
        "SELECT outbox.add_endpoint('https://example.com'), outbox.add_endpoint('https://example.com')",
        "SELECT outbox.stamp_subscriptions()",
        "INSERT INTO outbox.event (type, payload) SELECT 't', '1' FROM generate_series(1, 5)",
        "SELECT outbox.register('d', 'h', 1, 'v', '10 min')", "SELECT outbox.cut(1, 10, 0, 0, 1000)",
        "SELECT outbox.prove(10, '0 s')", "DELETE FROM outbox.delivery WHERE seq IN (3, 8)",
      ] { try connection.execute(statement) }
    }
    #expect(try await counts("--until", "1 hour", "--since", "1 day")["events"] == 0)
    let lost = try await counts("--since", "yesterday")
    #expect(lost["events"] == 5 && lost["pairs"] == 10 && lost["waiting"] == 8 && lost["missing"] == 2)
    let told = try await martlet()
    #expect(told.status == 1 && told.output.hasPrefix("CRITICAL: conservation: 5 events created from "))
    #expect(told.output.contains("10 deliveries = 0 delivered + 8 waiting + 0 in flight + 0 dead + 2 MISSING"))
    #expect(!(try await martlet("--repair", "--since", "1 day", "--until", "1 hour").output.contains("INFO: repaired")))
    let repaired = try await martlet("--repair")
    #expect(repaired.output.matches(of: /INFO: repaired: event/).count == 2)
    #expect(repaired.output.contains("10 deliveries = 0 delivered + 10 waiting + 0 in flight + 0 dead; 0 missing"))
    #expect(try await session.withConnection { try $0.query("SELECT 1 FROM outbox.delivery").count } == 10)
  }

  @Test func reconcileSaysWhatItWaitsForInsteadOfWaiting() async throws {
    let database = try await TestDatabase.make()
    let session = try await database.newSession()
    let (locked, continuation) = AsyncStream<Void>.makeStream()
    let holding = Task {
      try await session.withConnection { connection in
        try connection.transaction { connection in
          try connection.execute("LOCK TABLE outbox.event IN ACCESS EXCLUSIVE MODE")
          continuation.finish()
          // Held until the test cancels it.
          try connection.execute("SELECT pg_sleep(50)")
        }
      }
    }
    for await _ in locked {}
    let result = try await MartletProcess.run("reconcile", "--database-url", database.connectionString)
    #expect(result.status == 2)
    #expect(result.errors.contains("waited in vain for a lock"))
    #expect(result.errors.contains("pg_sleep"))
    holding.cancel()
    _ = await holding.result
  }
}
