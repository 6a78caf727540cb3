import Foundation
import Receiver
import TestSupport
import Testing

@testable import Dispatcher

/// So that a slow one ends soon.
private func transforms(within timeout: Duration) -> (inout DispatcherConfiguration) -> Void {
  { $0.transformTimeout = timeout }
}

@Suite struct TransformTests {
  private static let functions = """
    CREATE SCHEMA shop;
    CREATE FUNCTION shop.slack(e outbox.event) RETURNS jsonb LANGUAGE sql STABLE AS
    $$ SELECT jsonb_build_object('text', format('%s: %s', e.type, e.payload ->> 'n')) $$;
    CREATE FUNCTION shop.picky(e outbox.event) RETURNS jsonb LANGUAGE sql STABLE AS
    $$ SELECT to_jsonb(100 / ((e.payload ->> 'n')::int - 3)) $$;
    CREATE FUNCTION shop.slow(e outbox.event) RETURNS jsonb LANGUAGE sql VOLATILE AS
    $$ SELECT to_jsonb(pg_sleep(60)::text) $$;
    CREATE TABLE shop.mark (n int);
    CREATE FUNCTION shop.writer(e outbox.event) RETURNS jsonb LANGUAGE sql VOLATILE AS
    $$ INSERT INTO shop.mark VALUES (1) RETURNING '{}'::jsonb $$;
    CREATE FUNCTION shop.chatty(e outbox.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS
    $$ BEGIN RAISE EXCEPTION USING MESSAGE = repeat('no ', 1000000); END $$;
    CREATE FUNCTION shop.unconnected(e outbox.event) RETURNS jsonb LANGUAGE plpgsql STABLE AS
    $$ BEGIN RAISE EXCEPTION 'could not establish connection' USING ERRCODE = '08001'; END $$;
    CREATE FUNCTION shop.suicidal(e outbox.event) RETURNS jsonb LANGUAGE sql VOLATILE AS
    $$ SELECT to_jsonb(pg_terminate_backend(pg_backend_pid())) $$;
    CREATE FUNCTION shop.nothing(e outbox.event) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT NULL::jsonb $$;
    SELECT outbox.allow_transform('shop.' || f) FROM unnest('{slack,picky,slow,writer,chatty,unconnected,suicidal,nothing}'::text[]) f;
    """

  @Test func aTransformShapesTheBodyThatIsSigned() async throws {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    let database = try await TestDatabase.make()
    try await database.execute(Self.functions)
    let listener = try await Listener(secret: secret)
    for (path, options) in [("/direct", ""), ("/ordered", ", ordered => true")] {
      _ = try await database.addEndpoint(
        listener.url(path),
        options: "transform => 'shop.slack', secret => '\(secret)'\(options)"
      )
    }
    _ = try await database.addEndpoint(listener.url("/plain"), options: "format => 'raw', secret => '\(secret)'")
    try await withDispatcher(database) { _ in
      try await database.publish(50, key: "'k'")
      try await eventually("all have arrived") {
        ["/direct", "/ordered", "/plain"].allSatisfy { listener.accepted($0).count >= 50 }
      }
    }
    let expected = (1...50).map { #"{"text": "order.created: \#($0)"}"# }
    #expect(Set(listener.accepted("/direct").map(\.body)) == Set(expected))
    #expect(listener.accepted("/ordered").map(\.body) == expected)
    #expect(try await database.missing() == 0)
  }

  @Test func anErrorInATransformIsThatDeliverysFailureAndNobodyElses() async throws {
    let database = try await TestDatabase.make()
    try await database.execute(Self.functions)
    let listener = try await Listener()
    let picky = try await database.addEndpoint(
      listener.url("/picky"),
      options: "transform => 'shop.picky', max_attempts => 1"
    )
    var broken: [Int: String] = [:]
    for (function, words) in [
      ("slow", "statement timeout"), ("writer", "read-only transaction"), ("nothing", "it returned null"),
    ] {
      let id = try await database.addEndpoint(
        listener.url("/\(function)"),
        options: "transform => 'shop.\(function)', max_attempts => 1"
      )
      broken[id] = words
    }
    _ = try await database.addEndpoint(listener.url("/fine"))
    try await withDispatcher(database, configure: transforms(within: .milliseconds(200))) { _ in
      try await database.publish(5)
      try await eventually("everything has come to an end") {
        let settled = try await database.isSettled()
        return settled && listener.accepted("/fine").count == 5
      }
    }
    #expect(listener.accepted("/picky").count == 4)
    let letters = try await database.rows("SELECT endpoint_id, last_error FROM outbox.dead_letter ORDER BY id")
    #expect(
      letters.filter { $0[0] == "\(picky)" }.map { $0[1] } == [
        "invalidRequest: the transform shop.picky failed: division by zero"
      ]
    )
    for (id, words) in broken {
      let errors = letters.filter { $0[0] == "\(id)" }.compactMap { $0[1] }
      #expect(errors.count == 5 && errors.allSatisfy { $0.contains(words) }, "\(errors)")
    }
    #expect(try await database.int("SELECT count(*) FROM shop.mark") == 0)
    #expect(try await database.missing() == 0)
  }

  /// Such errors, of our own connection, mean: try again elsewhere. Of a function they must not.
  @Test(arguments: ["unconnected", "suicidal"])
  func aTransformThatFailsAsAConnectionDoesHoldsUpNobody(function: String) async throws {
    let database = try await TestDatabase.make()
    try await database.execute(Self.functions)
    let listener = try await Listener()
    _ = try await database.addEndpoint(
      listener.url("/bad"),
      options: "transform => 'shop.\(function)', max_attempts => 1"
    )
    _ = try await database.addEndpoint(listener.url("/good"), options: "transform => 'shop.slack'")
    try await withDispatcher(database) { _ in
      try await database.publish(2)
      try await eventually("everything has come to an end") {
        let settled = try await database.isSettled()
        return settled && listener.accepted("/good").count == 2
      }
    }
    #expect(listener.accepted("/bad").isEmpty)
    let dead = "SELECT count(*) FROM outbox.dead_letter WHERE last_error LIKE '%\(function)%'"
    #expect(try await database.int(dead) == 2)
    #expect(try await database.missing() == 0)
  }

  /// What it says goes into an event that tells of the dead letter, and an event has a limit: past that the outcome could
  /// never be recorded.
  @Test func aTransformThatSaysTooMuchIsCutShort() async throws {
    let database = try await TestDatabase.make()
    try await database.execute(Self.functions)
    let listener = try await Listener()
    _ = try await database.addEndpoint(
      listener.url("/chatty"),
      options: "transform => 'shop.chatty', max_attempts => 1"
    )
    _ = try await database.addEndpoint(listener.url("/told"), types: "{martlet.*}")
    try await withDispatcher(database) { _ in
      try await database.publish(1)
      try await eventually("it is told of the dead letter") { listener.accepted("/told").count == 1 }
    }
    let length = try await database.int("SELECT max(length(last_error)) FROM outbox.dead_letter")
    #expect((1000...1100).contains(length))
    #expect(try await database.missing() == 0)
  }

  @Test func aTransformThatIsForbiddenFailsAndGoesOnWhenItIsAllowedAgain() async throws {
    let database = try await TestDatabase.make()
    try await database.execute(Self.functions)
    let listener = try await Listener()
    _ = try await database.addEndpoint(
      listener.url(),
      options: "transform => 'shop.slack', first_delay => '50 ms', multiplier => 1"
    )
    try await database.execute("SELECT outbox.forbid_transform('shop.slack')")
    try await withDispatcher(database) { _ in
      try await database.publish(1)
      try await eventually("it was tried") {
        try await database.int("SELECT count(*) FROM outbox.delivery WHERE last_error LIKE '%not allowed%'") == 1
      }
      #expect(listener.arrivals.isEmpty)
      try await database.execute("SELECT outbox.allow_transform('shop.slack')")
      try await eventually("it has arrived") { listener.accepted().count == 1 }
    }
  }

  @Test func aShutdownGivesBackWhatWaitsForItsBody() async throws {
    let database = try await TestDatabase.make()
    try await database.execute(Self.functions)
    let listener = try await Listener()
    _ = try await database.addEndpoint(listener.url(), options: "transform => 'shop.slow'")
    try await withDispatcher(
      database,
      gracePeriod: .milliseconds(100),
      configure: transforms(within: .milliseconds(500))
    ) { _ in
      try await database.publish(20)
      try await eventually("some wait for their bodies") {
        try await database.int("SELECT count(*) FROM outbox.in_flight") > 10
      }
    }
    #expect(try await database.int("SELECT count(*) FROM outbox.dispatcher") == 0)
    #expect(try await database.int("SELECT count(*) FROM outbox.delivery WHERE dispatcher_id IS NULL") == 20)
    #expect(try await database.missing() == 0)
  }

  @Test func onlyAllowedFunctionsCanBeNamed() async throws {
    let database = try await TestDatabase.make()
    try await database.execute("CREATE SCHEMA shop")
    for name in ["shop.missing", "pg_catalog.row_to_json", "nonsense", "a.b; DROP TABLE x", ""] {
      await #expect(throws: (any Error).self, "\(name)") {
        _ = try await database.addEndpoint("https://example.com/", options: "transform => '\(name)'")
      }
      await #expect(throws: (any Error).self, "\(name)") {
        try await database.execute("SELECT outbox.allow_transform('\(name)')")
      }
    }
    await #expect(throws: (any Error).self) {
      try await database.execute("SET ROLE outbox_operator; SELECT outbox.allow_transform('shop.slack')")
    }
  }
}
