import Foundation
import OutboxStore
import Postgres

/// The calls that deliver: cut, claim, record.
extension Pairing {
  /// The number that a step carries: the right one, none, or that of a time gone by.
  private func number(_ dispatcher: Int) -> Int? {
    let number = resyncs[dispatcher] ?? 0
    return chance.oneIn(3) ? nil : chance.oneIn(20) ? number - 1 : number
  }

  func cut(_ dispatcher: Int) throws -> String {
    let (events, direct, perEndpoint) = (
      chance.pick([1, 2, 5, 500]), chance.pick([0, 2, 100]), chance.pick([1, 3, 100])
    )
    let busy = chance.oneIn(3) ? [1 + chance.below(model.tables.endpoints.count)] : []
    let slots = busy.map { _ in chance.below(3) }
    let number = number(dispatcher)
    let real = outcome { () throws(PostgresError) in
      try store.cut(
        dispatcher: Int64(dispatcher),
        events: events,
        direct: direct,
        perEndpoint: perEndpoint,
        bytes: 1 << 30,
        busy: busy.map { Int64($0) },
        slots: slots,
        resyncs: number
      )
    }
    let expected = outcome { () throws(PostgresError) in
      try model.transaction(waitsForDisk: false) { transaction throws(PostgresError) in
        try model.cut(
          dispatcher: dispatcher,
          events: events,
          direct: direct,
          perEndpoint: perEndpoint,
          busy: busy,
          slots: slots,
          resyncs: number,
          transaction
        )
      }
    }
    let what = "cut(\(dispatcher), \(events), \(direct), \(perEndpoint), \(busy), \(slots), \(number ?? -1))"
    try agree(what, real.map(describe), expected.map(describe))
    if case .success(let cut?) = real, case .success(let result?) = expected, let batch = cut.batch {
      batches[batch] = result.batch!
      for row in result.direct {
        for endpoint in row.endpoints {
          held[dispatcher, default: []].append(Holding(pair: Pair(row.event.id, endpoint), batch: batch, attempts: 0))
        }
      }
    }
    return what
  }

  private func describe(_ cut: Cut?) -> String {
    guard let cut else { return "nothing" }
    let direct = cut.direct.map { "\(event($0.event.id))→\($0.endpoints)" }
    return "\(cut.batch != nil) \(cut.events) \(cut.parked) \(cut.more) \(cut.claimable.sorted()) \(direct)"
  }

  private func describe(_ cut: ModelDatabase.CutResult?) -> String {
    guard let cut else { return "nothing" }
    let direct = cut.direct.map { "\($0.event.id)→\($0.endpoints)" }
    return "\(cut.batch != nil) \(cut.events) \(cut.parked) \(cut.more) \(cut.claimable.sorted()) \(direct)"
  }

  func claim(_ dispatcher: Int) throws -> String {
    let endpoints = model.tables.endpoints.map(\.id).filter { _ in !chance.oneIn(4) }
    let slots = endpoints.map { _ in chance.pick([1, 2, 100]) }
    let number = number(dispatcher)
    let real = outcome { () throws(PostgresError) in
      try store.claim(
        dispatcher: Int64(dispatcher),
        endpoints: endpoints.map { Int64($0) },
        slots: slots,
        floors: endpoints.map { _ in nil },
        resyncs: number
      )
    }
    var taken: [Pair] = []
    if case .success(let claimed) = real {
      taken = claimed.deliveries.map { Pair(event($0.event.id), Int($0.endpoint)) }
    }
    // Which of several that came due in the same microsecond is nobody's business: the model takes what PostgreSQL took,
    // as far as it could have taken it.
    let expected = outcome { () throws(PostgresError) in
      try model.transaction(waitsForDisk: false) { transaction throws(PostgresError) in
        try model.claim(
          dispatcher: dispatcher,
          endpoints: endpoints,
          slots: slots,
          floors: endpoints.map { _ in nil },
          resyncs: number,
          transaction,
          choose: { due, slots in
            Array((due.filter { taken.contains($0.pair) } + due.filter { !taken.contains($0.pair) }).prefix(slots))
          }
        )
      }
    }
    let what = "claim(\(dispatcher), \(endpoints), \(slots), \(number ?? -1))"
    try agree(
      what,
      real.map { $0.deliveries.map { "\(Pair(event($0.event.id), Int($0.endpoint))) \($0.attempts)" }.sorted() },
      expected.map { $0.map { "\($0.pair) \($0.attempts)" }.sorted() }
    )
    if case .success(let claimed) = expected {
      held[dispatcher, default: []] += claimed.map { Holding(pair: $0.pair, batch: nil, attempts: $0.attempts) }
    }
    return what
  }

  func record(_ dispatcher: Int) throws -> String {
    var (outcomes, finished): ([Holding.Told], [Int64]) = ([], [])
    var again = false
    if let last = lastRecord, last.dispatcher == dispatcher, chance.oneIn(4) {
      // As after a lost reply.
      (outcomes, finished, again) = (last.outcomes, last.finished, !chance.oneIn(3))
    } else {
      var mine = held[dispatcher] ?? []
      for _ in 0..<min(mine.count, chance.between(1, 5)) {
        let one = mine.remove(at: chance.below(mine.count))
        outcomes.append((told(one), one.pair))
        if let batch = one.batch, !mine.contains(where: { $0.batch == batch }) { finished.append(batch) }
      }
      held[dispatcher] = mine
      again = chance.oneIn(8)
    }
    guard !outcomes.isEmpty else { return "record nothing" }
    lastRecord = (dispatcher, outcomes, finished)
    let number = number(dispatcher)
    let real = outcome { () throws(PostgresError) in
      try store.record(
        dispatcher: Int64(dispatcher),
        outcomes.map(\.outcome),
        finishedBatches: finished,
        again: again,
        resyncs: number
      )
    }
    let expected = outcome { () throws(PostgresError) in
      try model.transaction(waitsForDisk: false) { transaction throws(PostgresError) in
        try model.record(
          dispatcher: dispatcher,
          outcomes.map { outcome, _ in
            var outcome = outcome
            outcome.batch = outcome.batch.map { Int64(batches[$0]!) }
            return outcome
          },
          pairs: outcomes.map(\.pair),
          finished: finished.map { batches[$0]! },
          again: again,
          resyncs: number,
          transaction
        )
      }
    }
    let told = outcomes.map { outcome, pair in
      "\(pair) \(outcome.kind) \(outcome.attempt) \(outcome.batch != nil) \(outcome.reason ?? "")"
    }
    let what = "record(\(dispatcher), \(told), \(again), \(number ?? -1))"
    try agree(
      what,
      real.map { $0.map { "\($0.endpoint) \($0.circuit) \($0.state)" }.sorted() },
      expected.map { $0.map { "\($0.endpoint) \($0.circuit.rawValue) \($0.state.rawValue)" }.sorted() }
    )
    return what
  }

  private func told(_ one: Holding) -> Outcome {
    let key = DeliveryKey(event: uuids[one.pair.event]!, endpoint: Int64(one.pair.endpoint))
    let kind: Outcome.Kind = chance.pick([.delivered, .delivered, .failed, .failed, .returned])
    var told = Outcome(
      delivery: key,
      batch: one.batch,
      kind: kind,
      attempt: one.attempts + (kind == .returned ? 0 : 1)
    )
    told.duration = .milliseconds(chance.below(5))
    switch kind {
    case .delivered: told.status = 200
    case .returned: told.retryIn = .zero
    case .failed:
      (told.status, told.error) = (500, "it failed")
      if chance.oneIn(5) {
        told.reason = chance.pick(["exhausted", "expired", "gone"])
      } else {
        told.retryIn = chance.oneIn(2) ? .zero : .seconds(3600)
      }
    }
    return told
  }
}
