import Foundation
import FoundationNetworking
import Receiver
import TestSupport
import Testing

@testable import Dispatcher

@Suite struct LifecycleTests {
  @Test func orderedEndpointsGetEachKeyInCommitOrderThroughFailures() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { arrival, count in
      // Every seventh fails the first time.
      (arrival.n ?? 0) % 7 == 0 && count == 0 ? Reply(status: 500) : .ok
    }
    _ = try await database.addEndpoint(
      listener.url(),
      options: "ordered => true, first_delay => '20 ms', failure_threshold => 1000"
    )
    let second = try RunningDispatcher(database)
    try await withDispatcher(database) { _ in
      for round in 0..<10 { try await database.publish(40, first: round * 40, key: "'k' || i % 8") }
      try await eventually("all have arrived") { listener.accepted().count >= 400 }
    }
    try await second.stop()
    let arrived = listener.accepted().compactMap(\.n)
    for key in 0..<8 {
      let ofKey = arrived.filter { $0 % 8 == key }
      #expect(ofKey == ofKey.sorted(), "key \(key)")
      #expect(ofKey.count == 50)
    }
  }

  @Test func shutdownGivesBackWhatIsQueuedAndReleasesTheLease() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { _, _ in .hang }
    _ = try await database.addEndpoint(listener.url(), options: "timeout => '5 min', max_in_flight => 3")
    try await withDispatcher(database, gracePeriod: .zero) { _ in
      try await database.publish(100)
      try await eventually("three are in flight") { listener.arrivals.count == 3 }
    }
    #expect(try await database.int("SELECT count(*) FROM outbox.dispatcher") == 0)
    #expect(try await database.int("SELECT count(*) FROM outbox.batch") == 0)
    #expect(
      try await database.int(
        "SELECT count(*) FROM outbox.delivery WHERE attempts = 0 AND dispatcher_id IS NULL AND due_at <= now()"
      ) == 100
    )
    #expect(try await database.missing() == 0)
  }

  @Test func aDispatcherThatLostItsLeaseIsFencedAndBeginsAnew() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener { _, count in count == 0 ? Reply(status: 200, delay: .seconds(1)) : .ok }
    _ = try await database.addEndpoint(listener.url())
    try await withDispatcher(database) { dispatcher in
      try await database.publish(5)
      try await eventually("five are in flight") { listener.arrivals.count == 5 }
      // What another dispatcher does once the lease has run out; in one transaction, or it would be renewed in between.
      let deliveries = try await database.session.withConnection { connection in
        try connection.transaction { connection in
          try connection.execute("UPDATE outbox.dispatcher SET expires_at = now() - interval '1 s'")
          return try connection.query("SELECT sum(deliveries)::bigint FROM outbox.recover()").int64(0, 0)
        }
      }
      #expect(deliveries == 5)
      try await eventually("they are delivered under a new lease") {
        try await database.int("SELECT count(*) FROM outbox.attempt WHERE outcome = 'delivered'") == 5
      }
      #expect(dispatcher.status.counters.leasesLost == 1)
    }
    // The fenced outcomes were not recorded: each delivery has one, of the second lease.
    #expect(
      try await database.int("SELECT count(DISTINCT dispatcher_id) FROM outbox.attempt WHERE outcome = 'delivered'")
        == 1
    )
    #expect(try await database.int("SELECT count(*) FROM outbox.attempt WHERE outcome = 'unknown'") == 5)
    #expect(try await database.missing() == 0)
  }

  @Test func nothingIsLostWhenPostgreSQLCrashesAndComesBack() async throws {
    let database = try await TestDatabase.makeAlone()
    let listener = try await Listener()
    _ = try await database.addEndpoint(listener.url())
    try await withDispatcher(database) { _ in
      var committed = 0
      for round in 0..<5 {
        try await database.publish(300, first: round * 300)
        committed += 300
        try await eventually("some have arrived") { listener.arrivals.count > committed - 300 }
        try await database.server.restart(.immediate)
        await database.session.disconnect()
      }
      try await eventually("all have arrived") { Set(listener.accepted().compactMap(\.n)).count == committed }
      try await eventually("all is recorded") {
        try await database.isSettled()
      }
    }
    #expect(try await database.missing() == 0)
    for (_, again) in Dictionary(grouping: listener.accepted(), by: \.n) { #expect(Set(again.map(\.id)).count == 1) }
    try await database.server.stop()
  }

  @Test func backendsTerminatedAtRandomLoseNothing() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    _ = try await database.addEndpoint(listener.url())
    _ = try await database.addEndpoint(
      listener.url("/ordered"),
      options: "ordered => true, first_delay => '20 ms'"
    )
    try await withDispatcher(database) { _ in
      for round in 0..<40 {
        try await database.publish(25, first: round * 25, key: "'k' || i % 5")
        try await database.execute(
          """
          SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND application_name IN ('martlet-intake', 'martlet-record', 'martlet-lease')
            AND random() < 0.3
          """
        )
      }
      try await eventually("all have arrived") {
        Set(listener.accepted().compactMap(\.n)).count == 1000
          && Set(listener.accepted("/ordered").compactMap(\.n)).count == 1000
      }
      try await eventually("all is recorded") {
        try await database.isSettled()
      }
    }
    #expect(try await database.missing() == 0)
  }

  /// SIGTERM, and PostgreSQL goes away before the last outcome is recorded.
  @Test func shutdownEndsThoughTheDatabaseWentAwayAndLosesNothing() async throws {
    let database = try await TestDatabase.makeAlone()
    let listener = try await Listener { _, _ in Reply(status: 200, delay: .seconds(1)) }
    _ = try await database.addEndpoint(listener.url())
    let running = try RunningDispatcher(database, gracePeriod: .seconds(3))
    try await database.publish(1)
    try await eventually("it is in flight") { listener.arrivals.count == 1 }
    await database.session.disconnect()
    try await database.server.halt(.immediate)
    async let stopped: Void = running.stop()
    try await eventually("it was answered") { running.dispatcher.status.inFlight == 0 }
    try await database.server.resume()
    try await stopped
    // Recorded, or available again: never held by nobody.
    try await database.execute("SELECT * FROM outbox.recover()")
    #expect(try await database.missing() == 0)
    try await database.server.stop()
  }

  /// One outcome that the database refuses costs that one, not the dispatcher.
  @Test func anOutcomeThatCannotBeRecordedStopsNobody() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    _ = try await database.addEndpoint(listener.url())
    try await database.execute(
      """
      CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF coalesce(to_jsonb(NEW) ->> 'outcome', 'delivered') = 'delivered' AND EXISTS (
          SELECT FROM outbox.event e WHERE e.payload ->> 'n' = '7'
            AND (to_jsonb(NEW) ->> 'event_id' = e.id::text OR to_jsonb(NEW) -> 'event_ids' ? e.id::text)) THEN
          RAISE EXCEPTION 'not this one' USING ERRCODE = 'data_exception';
        END IF;
        RETURN NEW; END $$;
      DO $$ DECLARE p text; BEGIN
        FOR p IN SELECT partition FROM outbox.partitions() WHERE parent LIKE 'attempt%' LOOP
          EXECUTE format('CREATE TRIGGER refuse BEFORE INSERT ON outbox.%I FOR EACH ROW EXECUTE FUNCTION public.refuse()', p);
        END LOOP; END $$;
      GRANT EXECUTE ON FUNCTION public.refuse() TO PUBLIC;
      """
    )
    try await withDispatcher(database) { dispatcher in
      try await database.publish(20)
      try await eventually("all others are recorded") {
        try await database.int("SELECT count(*) FROM outbox.attempt WHERE outcome = 'delivered'") == 19
      }
      try await database.publish(5, first: 21)
      try await eventually("it goes on") {
        try await database.int("SELECT count(*) FROM outbox.attempt WHERE outcome = 'delivered'") == 24
      }
    }
    // Given back on shutdown: it will be tried again.
    #expect(try await database.int("SELECT count(*) FROM outbox.delivery") == 1)
    #expect(try await database.missing() == 0)
  }

  @Test func theAdminServerTellsHealthAndMetrics() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    _ = try await database.addEndpoint(listener.url())
    let port = UInt16.random(in: 20_000..<30_000)
    try await withDispatcher(database) { dispatcher in
      let admin = AdminServer(host: "127.0.0.1", port: port) { dispatcher.status }
      let serving = Task { try await admin.run() }
      try await database.publish(3)
      try await eventually("all are recorded") { dispatcher.status.counters.delivered == 3 }
      func get(_ path: String) async throws -> (Int, String) {
        let (data, response) = try await URLSession.shared.data(from: URL(string: "http://127.0.0.1:\(port)\(path)")!)
        return ((response as? HTTPURLResponse)?.statusCode ?? 0, String(decoding: data, as: UTF8.self))
      }
      try await eventually("it listens") { (try? await get("/health")) != nil }
      #expect(try await get("/health").0 == 200)
      #expect(try await get("/metrics").1.contains("martlet_deliveries_delivered_total 3\n"))
      #expect(try await get("/nothing").0 == 404)
      serving.cancel()
      _ = try? await serving.value
    }
  }

  @Test func aRestoredCopySendsNothingByItself() async throws {
    let database = try await TestDatabase.make()
    try await database.execute("UPDATE outbox.anchor SET system_identifier = 1")
    let running = try RunningDispatcher(database)
    await #expect(throws: DispatcherError.self) { try await running.stop() }
  }
}
