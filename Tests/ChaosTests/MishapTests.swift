import Postgres
import TestSupport
import Testing

@testable import Chaos

/// What a busy machine does of itself: how much of it explains a repetition, and what does not.
@Suite struct MishapTests {
  private let origin = ContinuousClock.now
  private let pairs = (1...4).map { Pair(event: $0, endpoint: 0) }

  @Test func aTimeoutExplainsOneRepetitionAfterIt() {
    let caught = Mishap.caught([mishap(.timeout, pairs[0], at: 5)], except: [])
    #expect(unexplained([(pairs[0], 6)], caught) == [])
    #expect(unexplained([(pairs[0], 6), (pairs[0], 7)], caught) == [pairs[0]])
    #expect(unexplained([(pairs[0], 4)], caught) == [pairs[0]])
    #expect(unexplained([(pairs[1], 6)], caught) == [pairs[1]])
  }

  /// What it held was counted when it stood still; that nothing else comes again is what the run is to show.
  @Test func aVictimGetsNothingOnTopOfWhatWasCounted() {
    let mishaps = [mishap(.lease, pairs[0], of: 1, at: 5), mishap(.lease, pairs[1], of: 2, at: 5)]
    let caught = Mishap.caught(mishaps, except: [1])
    #expect(unexplained([(pairs[0], 6), (pairs[1], 6)], caught) == [pairs[0]])
    // A timeout was before that, and is no matter of the lease.
    #expect(unexplained([(pairs[0], 6)], Mishap.caught([mishap(.timeout, pairs[0], of: 1, at: 2)], except: [1])) == [])
  }

  @Test func whatAFaultExplainsIsTheFaults() {
    let mishaps = [mishap(.lease, pairs[0], of: 1, at: 5), mishap(.lease, pairs[1], of: 1, at: 5)]
    let fault = Caught(cause: .fault(.kill), began: origin, codes: [pairs[0].code])
    let caught = Mishap.caught(mishaps, except: []) + [fault]
    let lines = Injections.lines(caught, explanation([(pairs[0], 6), (pairs[1], 6)], caught))
    #expect(lines.map(\.cause) == [.fault(.kill), .lease])
    #expect(lines.map(\.repeated) == [1, 1] && lines.map(\.bound) == [1, 2])
  }

  @Test func anAccountCountsMishapsWithTheFaults() {
    let arrivals = [1, 10].map {
      Mailbox.Arrival(pair: pairs[0], id: .init(), isAccepted: true, at: origin + .seconds($0))
    }
    var account = Account(journal: .init(), arrivals: arrivals, incidents: [])
    #expect(account.settle().unexplained == [pairs[0]])
    account.mishaps = [mishap(.lease, pairs[0], of: 7, at: 5)]
    #expect(account.settle().unexplained.isEmpty)
    var incident = Incident(fault: .kill, began: origin, ended: origin)
    incident.victims = [7]
    account.incidents = [incident]
    #expect(account.settle().unexplained == [pairs[0]])
  }

  /// One dispatcher that had an answer, one that had none in time, one too early, and one when its lease ran out.
  @Test func historyTellsWhatHasNoKnownOutcome() async throws {
    let database = try await TestDatabase.make()
    let endpoint = try await database.addEndpoint("http://127.0.0.1:1/")
    try await database.execute("SELECT outbox.stamp_subscriptions()")
    try await database.publish(5)
    let dispatcher = try await database.int("outbox.register('a', 'h', 1, 'v', '1 hour')")
    #expect(try await database.int("(SELECT count(event_id) FROM outbox.cut(\(dispatcher), 10, 10, 10, 1000000))") == 5)
    try await database.execute(
      """
      SELECT outbox.record(\(dispatcher), array_agg(f.event_id), array_agg(f.endpoint_id), array_agg(f.batch_id), array_agg(1),
        array_agg(o.outcome), array_agg(NULL::int), array_agg(o.duration), array_agg(o.error), array_agg(NULL::text),
        array_agg(CASE WHEN o.outcome = 'failed' THEN 60000 END::bigint), array_agg(NULL::text), '{}')
      FROM outbox.in_flight f JOIN outbox.event e ON e.id = f.event_id
      JOIN (VALUES (1, 'delivered', 6000, NULL), (2, 'failed', 6000, 'timeout: the deadline passed'),
                   (3, 'failed', 500, 'timeout: the deadline passed'), (4, 'failed', 6000, 'reset: the connection ended'))
        o(n, outcome, duration, error) ON to_jsonb(o.n) = e.payload -> 'n'
      """
    )
    var observer = Observer(session: database.session)
    observer.endpoints = [Int64(endpoint)]
    let timedOut = Mishap.Entry(
      cause: .timeout,
      pair: Pair(event: 2, endpoint: 0),
      dispatcher: Int64(dispatcher),
      writtenAt: 0
    )
    #expect(try await entries(observer) == [timedOut])
    try await database.execute("UPDATE outbox.dispatcher SET expires_at = clock_timestamp() - interval '1 s'")
    #expect(try await database.int("(SELECT sum(deliveries) FROM outbox.recover())") == 1)
    var lost = timedOut
    (lost.cause, lost.pair.event) = (.lease, 5)
    #expect(try await entries(observer) == [timedOut, lost])
    let later = try await observer.serverTime()
    #expect(try await observer.mishaps(since: later, timeout: 6).isEmpty)
  }

  @Test func ofAKeyThatACrashTookBackTheFirstThatDidNotArriveMayBeOnItsWay() {
    let waiting = [(0, "a"), (1, "a"), (2, "a"), (3, nil)].map { Waiting(pair: pairs[$0.0], key: $0.1) }
    #expect(Waiting.reached(waiting, []) == [pairs[0], pairs[3]])
    #expect(Waiting.reached(waiting, [pairs[0]]) == [pairs[0], pairs[1], pairs[3]])
    // Of another endpoint it is another key.
    let elsewhere = Pair(event: 9, endpoint: 1)
    #expect(Waiting.reached(waiting + [Waiting(pair: elsewhere, key: "a")], []) == [pairs[0], pairs[3], elsewhere])
  }

  private func entries(_ observer: Observer) async throws -> [Mishap.Entry] {
    try await observer.mishaps(since: 0, timeout: 6).map { mishap in
      #expect(mishap.at > origin && mishap.at < .now)
      var entry = mishap.entry
      entry.writtenAt = 0
      return entry
    }
  }

  private func mishap(_ cause: Cause, _ pair: Pair, of dispatcher: Int64 = 1, at seconds: Int) -> Mishap {
    let entry = Mishap.Entry(cause: cause, pair: pair, dispatcher: dispatcher, writtenAt: Double(seconds))
    return Mishap(entry: entry, at: origin + .seconds(seconds))
  }

  private func explanation(_ repetitions: [(Pair, Int)], _ caught: [Caught]) -> Explanation {
    Explanation(repetitions.map { (code: $0.0.code, at: origin + .seconds($0.1)) }, caught)
  }

  private func unexplained(_ repetitions: [(Pair, Int)], _ caught: [Caught]) -> [Pair] {
    explanation(repetitions, caught).unexplained
  }
}
