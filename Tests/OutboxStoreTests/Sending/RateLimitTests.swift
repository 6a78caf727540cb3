import Foundation
import OutboxStore
import Postgres
import Testing

/// `rate_limit`: a token bucket that all dispatchers share. Time is moved in the bucket, never waited for.
@Suite struct RateLimitTests {
  /// Whenever claims come, and however much of what there is they take, no window of ten seconds lets through more than the
  /// limit, one delivery and those of a quarter of a second.
  @Test(arguments: [0.5, 1, 3.7, 40, 100, 5_000, 100_000]) func bucketIsExact(rate: Double) async throws {
    try await withDatabase { database in
      let client = database.client()
      try await client.execute(
        """
        CREATE TABLE grants (at bigint, taken int);
        DO $$ DECLARE now_at bigint := 1700000000000000; empty_at bigint := 0; n int; BEGIN
          FOR step IN 1..4000 LOOP
            now_at := now_at + (random() * 30000)::bigint + CASE WHEN random() < 0.05 THEN 200000 ELSE 0 END;
            n := floor(outbox.bucket_tokens(\(rate), empty_at, now_at) * CASE WHEN step > 1 AND random() < 0.3 THEN random() ELSE 1 END);
            empty_at := outbox.bucket_after(\(rate), empty_at, now_at, n);
            INSERT INTO grants VALUES (now_at, n);
          END LOOP; END $$
        """
      )
      let most = try await client.int(
        "SELECT max(n) FROM (SELECT sum(taken) OVER (ORDER BY at RANGE BETWEEN CURRENT ROW AND 9999999 FOLLOWING) n FROM grants) x"
      )
      #expect(Double(most) <= rate * 10 + 1 + rate / 4 + 0.001)
    }
  }

  /// As long as claims come at least every quarter of a second and take all there is, all of it goes out.
  @Test(arguments: [0.5, 1, 3.7, 40, 100, 5_000]) func nothingIsLostBetweenClaims(rate: Double) async throws {
    try await withDatabase { database in
      let row = try await database.client().rows(
        """
        WITH RECURSIVE claim AS (
          SELECT 1 AS step, 1700000000000000 AS now_at, outbox.bucket_after(\(rate), 0, 1700000000000000, (1 + \(rate) / 4)::int) AS empty_at, 0 AS taken
          UNION ALL
          SELECT c.step + 1, t.now_at, outbox.bucket_after(\(rate), c.empty_at, t.now_at, n.n), n.n
          FROM claim c
          CROSS JOIN LATERAL (SELECT c.now_at + 1 + (c.step * 7919 % 249) * 1000 AS now_at) t
          CROSS JOIN LATERAL (SELECT floor(outbox.bucket_tokens(\(rate), c.empty_at, t.now_at))::int AS n) n
          WHERE c.step < 2000
        ) SELECT sum(taken), (max(now_at) - min(now_at)) / 1e6 FROM claim
        """
      )[0]
      let (taken, seconds) = (try #require(row[0].flatMap(Double.init)), try #require(row[1].flatMap(Double.init)))
      #expect(abs(taken - rate * seconds) <= rate * seconds * 0.001 + 2)
    }
  }

  @Test func clockThatWasSetBackStopsNobody() async throws {
    try await withDatabase { database in
      let values = try await database.client().rows(
        """
        SELECT outbox.bucket_tokens(10, 2000000000, 1000000000), outbox.bucket_after(10, 2000000000, 1000000000, 0),
          outbox.bucket_wait_ms(10, 2000000000, 1000000000, 1)
        """
      )
      #expect(values == [["0", "1000000000", "100"]])
    }
  }

  @Test func pairsOfALimitedEndpointAreParkedAndClaimedAsTokensComeIn() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("rate_limit => 8")
      let free = try await worker.client.addEndpoint()
      try await worker.client.publish(20)
      let cut = try #require(try await worker.cut())
      #expect(cut.parked == 20 && Set(cut.pairs.map(\.endpoint)) == [free] && cut.claimable == [endpoint])
      // A full bucket: one, and a quarter of a second's.
      let first = try await worker.claimOrWait([endpoint])
      #expect(first.deliveries.map(\.event.number) == [1, 2, 3])
      let pause = try #require(first.again[endpoint])
      #expect(pause > .zero && pause <= .milliseconds(125))
      try await drainBucket(worker.client, endpoint)
      let empty = try await worker.claimOrWait([endpoint])
      #expect(empty.deliveries.isEmpty && empty.again[endpoint] != nil)
      let wait = try await worker.client.store { try $0.waiting() }
      #expect(wait.count == 1 && wait[0].dueIn > .zero)
      try await fillBucket(worker.client, endpoint)
      #expect(try await worker.claim([endpoint], slots: 2).map(\.event.number) == [4, 5])
    }
  }

  @Test func limitedEndpointWithNothingMoreDueIsNotComeBackTo() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("rate_limit => 100")
      try await worker.client.publish(3)
      _ = try await worker.cut()
      let claim = try await worker.claimOrWait([endpoint])
      #expect(claim.deliveries.count == 3 && claim.again.isEmpty)
      #expect(try await worker.claimOrWait([endpoint]).again.isEmpty)
    }
  }

  @Test func retriesProbesAndOrderedKeysCountToo() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("rate_limit => 1, ordered => true, failure_threshold => 2")
      try await worker.client.publish(1, key: "a")
      try await worker.client.publish(2, key: "b", from: 2)
      _ = try await worker.cut()
      try await worker.record(try await worker.claim([endpoint]).map { $0.outcome(.failed) })
      try await drainBucket(worker.client, endpoint)
      #expect(try await worker.claim([endpoint]).isEmpty, "a retry needs a token")
      try await fillBucket(worker.client, endpoint)
      let second = try await worker.claim([endpoint])
      #expect(second.count == 1, "one key at a time")
      try await worker.record(second.map { $0.outcome(.failed) })
      try await drainBucket(worker.client, endpoint)
      try await worker.client.execute("UPDATE outbox.endpoint_health SET probe_at = clock_timestamp()")
      #expect(try await worker.claim([endpoint]).isEmpty, "a probe needs a token")
      // It was not made, so it is still due.
      #expect(try await worker.client.value("SELECT state FROM outbox.endpoint_health") == "open")
      try await fillBucket(worker.client, endpoint)
      #expect(try await worker.claim([endpoint]).count == 1)
      #expect(try await worker.client.value("SELECT state FROM outbox.endpoint_health") == "half_open")
    }
  }

  @Test func newLimitCountsAtOnce() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("rate_limit => 0.001")
      try await worker.client.publish(100)
      _ = try await worker.cut()
      #expect(try await worker.claim([endpoint]).count == 1)
      #expect(try await worker.claimOrWait([endpoint]).again[endpoint]! > .seconds(900))
      func limit(_ value: String) async throws {
        try await worker.client.execute("UPDATE outbox.endpoint SET rate_limit = \(value)")
      }
      // Raised: of the seconds since the last one. The statements themselves take a few milliseconds.
      try await limit("100000")
      #expect(try await worker.claim([endpoint], slots: 10).count == 10)
      // Lowered: what has come in meanwhile is less than one.
      try await limit("0.01")
      #expect(try await worker.claim([endpoint]).isEmpty)
      try await limit("NULL")
      #expect(try await worker.claim([endpoint], slots: 10).count == 10)
      try await worker.client.publish(1, from: 999)
      #expect(try await worker.drain().flatMap(\.pairs).count == 1, "and it is direct again")
      try await limit("5")
      #expect(try await worker.claim([endpoint], slots: 10).count <= 2)
    }
  }

  /// While one dispatcher is between looking into the bucket and taking out of it, nobody waits for it, and nobody else
  /// takes anything.
  @Test func bucketInUseIsComeBackToInAMoment() async throws {
    try await withDatabase { database in
      let (one, two) = (try await Worker(database), try await Worker(database))
      let endpoint = try await one.client.addEndpoint("rate_limit => 100")
      let free = try await one.client.addEndpoint()
      try await one.client.publish(200)
      _ = try await one.cut(direct: 0)
      try await one.client.execute("BEGIN")
      #expect(try await one.claim([endpoint]).count == 26)
      let claim = try await two.claimOrWait([endpoint, free], slots: 10)
      #expect(claim.deliveries.count == 10 && Set(claim.deliveries.map(\.endpoint)) == [free])
      #expect(claim.again == [endpoint: .milliseconds(25)])
      try await one.client.execute("COMMIT")
    }
  }

  @Test func claimThatRollsBackHasSpentItsTokens() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("rate_limit => 0.01")
      try await worker.client.publish(2)
      _ = try await worker.cut()
      try await worker.client.execute("BEGIN")
      #expect(try await worker.claim([endpoint]).count == 1)
      try await worker.client.execute("ROLLBACK")
      #expect(try await worker.claim([endpoint]).isEmpty)
    }
  }

  /// No more is claimed than it takes at a time: what is counted leaves at once.
  @Test func claimOfALimitedEndpointIsBoundedByMaxInFlight() async throws {
    try await withDatabase { database in
      let worker = try await Worker(database)
      let endpoint = try await worker.client.addEndpoint("rate_limit => 1000, max_in_flight => 7")
      try await worker.client.publish(100)
      _ = try await worker.cut()
      #expect(try await worker.claim([endpoint]).count == 7)
    }
  }

  @Test func bucketComesAndGoesWithItsEndpoint() async throws {
    try await withDatabase { database in
      let owner = database.client()
      let client = database.client()
      try await client.becomes("outbox_operator")
      let endpoint = try await client.addEndpoint("rate_limit => 5")
      let buckets = "SELECT count(*) FROM pg_class WHERE relkind = 'S' AND relname LIKE 'rate\\_%'"
      #expect(try await owner.int(buckets) == 1)
      try await owner.execute("DROP SEQUENCE outbox.rate_\(endpoint)")
      let worker = try await Worker(database)
      try await worker.client.publish(1)
      _ = try await worker.cut()
      #expect(try await worker.claim([endpoint]).isEmpty)
      let found = try #require(try await client.findings().first { $0.finding == "rate limit without a bucket" })
      try await client.execute(found.statements[0])
      #expect(try await worker.claim([endpoint]).count == 1)
      try await worker.client.becomes("outbox_dispatcher")
      _ = try await worker.client.store { [id = worker.id] in try $0.release(dispatcher: id) }
      try await client.execute("SELECT outbox.delete_endpoint(\(endpoint), discard_waiting => true)")
      #expect(try await owner.int(buckets) == 0)
    }
  }

  @Test func dispatchersRoleMaySpend() async throws {
    try await withDatabase { database in
      let owner = database.client()
      let endpoint = try await owner.addEndpoint("rate_limit => 100")
      try await owner.publish(50)
      let worker = try await Worker(database)
      try await worker.client.becomes("outbox_dispatcher")
      _ = try await worker.cut()
      #expect(try await worker.claim([endpoint]).count == 26)
      _ = try await worker.client.store { try $0.waiting() }
    }
  }

  private func drainBucket(_ client: Client, _ endpoint: Int64) async throws {
    try await client.execute("SELECT setval('outbox.rate_\(endpoint)', outbox.now_us())")
  }

  private func fillBucket(_ client: Client, _ endpoint: Int64) async throws {
    try await client.execute("SELECT setval('outbox.rate_\(endpoint)', outbox.now_us() - 3600000000)")
  }
}
