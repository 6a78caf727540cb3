import OutboxStore
import Postgres

/// sql/0007_cut.sql
extension ModelDatabase {
  func holdLease(_ dispatcher: Int, _ resyncs: Int?, _ transaction: Transaction) throws(PostgresError) {
    if mutation == .skipFencing { return }
    if mutation != .recoverDespiteRunningStep {
      try lock(leaseLock(dispatcher), exclusive: false, transaction)
    }
    try requireLease(dispatcher, resyncs)
  }

  func requireLease(_ dispatcher: Int, _ resyncs: Int?) throws(PostgresError) {
    if mutation == .skipFencing { return }
    guard let expires = tables.lease(dispatcher) else { throw .raised(OutboxState.leaseLost) }
    if expires <= clock { throw .raised(OutboxState.leaseExpired) }
    guard let newest = tables.witness[dispatcher] else { throw .raised(OutboxState.mustResync) }
    if let resyncs, resyncs != newest, mutation != .ignoreLateArrivals { throw .raised(OutboxState.mustResync) }
  }

  /// What `outbox.cut` returns. `direct` has a row per event, in the order of the log.
  struct CutResult {
    var batch: Int?
    var events: Int
    var parked: Int
    var claimable: [Int]
    var more: Bool
    var direct: [(event: EventRow, endpoints: [Int])]
  }

  func cut(
    dispatcher: Int,
    events maxEvents: Int,
    direct maxDirect: Int,
    perEndpoint: Int,
    busy: [Int],
    slots: [Int],
    resyncs: Int? = nil,
    _ transaction: Transaction
  ) throws(PostgresError) -> CutResult? {
    guard maxEvents >= 1 else { return nil }
    if mutation != .cutWithoutLock, !tryCutLock(transaction) { return nil }
    var last = tables.position
    var goal: Snapshot
    var exhausted = false
    var fresh: [EventRow]
    repeat {
      goal = last.target
      if last.after == nil {
        goal = snapshot
        if goal == last.done {
          if exhausted {
            fresh = []
            break
          }
          return nil
        }
      }
      fresh = newEvents(last, goal, maxEvents)
      if !fresh.isEmpty || last.after == nil { break }
      if !tables.setAside.isEmpty { return try settle(dispatcher, resyncs, transaction) }
      exhausted = true
      last.done = goal
      last.after = nil
    } while true
    let started = clock
    if fresh.isEmpty, !exhausted, last.cutAt > started - 1_000_000 { return nil }
    if !fresh.isEmpty {
      try holdLease(dispatcher, resyncs, transaction)
      try between(transaction)
    }
    let endpoints = tables.endpoints
    var (direct, parked, keys, due, claimable) = place(fresh, maxDirect, perEndpoint, busy, slots)
    if direct.count == 0, parked.isEmpty { claimable = [] }
    let isFull = fresh.count == maxEvents
    let count = parked.count
    var aside: [(pair: Pair, due: Int)] = []
    if isFull || last.after != nil, mutation != .parkInOrderOfTheLog,
      let horizon = [isFull ? lowest(last, goal, after: fresh.last!) : nil, tables.setAside.first?.event].compactMap({
        $0
      }).min()
    {
      let isAside = parked.indices.map { keys[$0] != nil && parked[$0].event > horizon }
      aside = parked.indices.filter { isAside[$0] }.map { (parked[$0], due[$0]) }
      let kept = parked.indices.filter { !isAside[$0] }
      (parked, keys, due) = (kept.map { parked[$0] }, kept.map { keys[$0] }, kept.map { due[$0] })
    }
    let ready = try readiness(parked, keys, transaction)
    try between(transaction)

    insert(aside.map(\.pair), aside.map { _ in nil }, aside.map { _ in false }, aside.map(\.due))
    insert(parked, keys, ready, due)
    var batch: Int?
    if !direct.isEmpty {
      batch = newBatch()
      tables.batches.append(
        Batch(id: batch!, dispatcher: dispatcher, pairs: direct.map { Pair($0.event.id, $0.endpoint) })
      )
      for one in direct { touched.append(Pair(one.event.id, one.endpoint)) }
    }
    let more = isFull || last.after != nil && !tables.setAside.isEmpty
    var position = Position(done: more ? last.done : goal, target: goal, events: fresh.count, cutAt: clock)
    if more, let end = fresh.last {
      position.after = .init(tx: end.tx, id: mutation == .skipRestOfTransaction ? Int.max : end.id)
    }
    tables.position = position
    tables.positions += 1
    commit(
      .cut(
        .init(
          dispatcher: dispatcher,
          batch: batch,
          direct: direct.map { Pair($0.event.id, $0.endpoint) },
          parked: parked + aside.map(\.pair),
          endpoints: endpoints
        )
      ),
      transaction
    )
    if fresh.isEmpty { return nil }
    var rows: [(event: EventRow, endpoints: [Int])] = []
    for one in direct {
      if rows.last?.event.id == one.event.id {
        rows[rows.count - 1].endpoints.append(one.endpoint)
      } else {
        rows.append((one.event, [one.endpoint]))
      }
    }
    return CutResult(
      batch: batch,
      events: fresh.count,
      parked: count,
      claimable: claimable.sorted(),
      more: more,
      direct: rows
    )
  }

  /// `outbox.order_horizon`, which looks at as much of the rest as it takes to know the lowest of all.
  private func lowest(_ last: Position, _ goal: Snapshot, after: EventRow) -> Int? {
    var rest = last
    rest.after = .init(tx: after.tx, id: after.id)
    return newEvents(rest, goal, .max).map(\.id).min()
  }

  /// `outbox.settle`, all at once, as the SQL does up to 20,000.
  private func settle(_ dispatcher: Int, _ resyncs: Int?, _ transaction: Transaction) throws(PostgresError) -> CutResult
  {
    try holdLease(dispatcher, resyncs, transaction)
    try between(transaction)
    let aside = tables.setAside
    let due = aside.map { tables.deliveries[$0]!.due }
    let keys = aside.map { pair in
      tables.endpoint(pair.endpoint)?.ordered == true ? tables.events.first { $0.id == pair.event }?.key : nil
    }
    for pair in aside { tables.deliveries[pair] = nil }
    insert(aside, keys, try readiness(aside, keys, transaction), due)
    commit(.nothing, transaction)
    return CutResult(
      batch: nil,
      events: 0,
      parked: 0,
      claimable: Set(aside.map(\.endpoint)).sorted(),
      more: true,
      direct: []
    )
  }

  /// visible(target) \ visible(done), from where the last cut ended.
  private func newEvents(_ last: Position, _ goal: Snapshot, _ limit: Int) -> [EventRow] {
    let late =
      mutation == .forgetLateTransactions
      ? [] : last.done.xip.filter { goal.sees($0) && (last.after == nil || $0 >= last.after!.tx) }
    var low = (tx: last.done.xmax - 1, id: Int.max)
    if let after = last.after, after.tx >= last.done.xmax { low = (after.tx, after.id) }
    var found: [EventRow] = []
    for event in tables.events {
      guard event.tx > low.tx || event.tx == low.tx && event.id > low.id || late.contains(event.tx) else { continue }
      if late.contains(event.tx) {
        if event.tx == last.after?.tx, event.id <= last.after!.id { continue }
      } else if mutation != .cutPastTheTarget, !goal.sees(event.tx) {
        continue
      }
      found.append(event)
      if found.count == limit { break }
    }
    return found
  }

  private typealias Direct = (event: EventRow, endpoint: Int)

  private func place(_ fresh: [EventRow], _ maxDirect: Int, _ perEndpoint: Int, _ busy: [Int], _ slots: [Int])
    -> (direct: [Direct], parked: [Pair], keys: [Int?], due: [Int], claimable: [Int])
  {
    var direct: [Direct] = []
    var parked: [(pair: Pair, key: Int?, due: Int)] = []
    var claimable: Set<Int> = []
    var used: [Int: Int] = [:]
    for event in fresh {
      for endpoint in tables.endpoints where endpoint.state != .disabled && endpoint.types.contains(event.type) {
        let isDue = event.notBefore.map { $0 <= clock } ?? true
        let openWay = endpoint.state == .enabled && (tables.health[endpoint.id]?.state ?? .closed) == .closed
        let inOrder = endpoint.ordered && event.key != nil
        let eligible = openWay && isDue && !inOrder
        var fits = false
        if eligible {
          let place = used[endpoint.id, default: 0] + 1
          used[endpoint.id] = place
          fits = place <= (busy.firstIndex(of: endpoint.id).map { slots[$0] } ?? perEndpoint)
        }
        if fits, direct.count < maxDirect {
          direct.append((event, endpoint.id))
        } else {
          let now = clock
          parked.append((Pair(event.id, endpoint.id), inOrder ? event.key : nil, max(event.notBefore ?? now, now)))
          if openWay, isDue { claimable.insert(endpoint.id) }
        }
      }
    }
    parked.sort { $0.pair < $1.pair }
    return (direct, parked.map(\.pair), parked.map(\.key), parked.map(\.due), claimable.sorted())
  }

  /// The first half of `outbox.park`: whether each will be ready, under the locks that keep it so.
  func readiness(_ pairs: [Pair], _ keys: [Int?], _ transaction: Transaction) throws(PostgresError) -> [Bool] {
    var locked: Set<Int> = []
    for (pair, key) in zip(pairs, keys) where key != nil { locked.insert(pair.endpoint) }
    if mutation != .parkWithoutKeyLock {
      for endpoint in locked.sorted() { try lock(keyLock(endpoint), exclusive: true, transaction) }
    }
    var begun: Set<Pair> = []
    var ready: [Bool] = []
    for (pair, key) in zip(pairs, keys) {
      guard let key else {
        ready.append(true)
        continue
      }
      let isFirst = begun.insert(Pair(key, pair.endpoint)).inserted
      let isBusy = isFirst && tables.deliveries.values.contains { $0.pair.endpoint == pair.endpoint && $0.key == key }
      ready.append(isFirst && !isBusy)
    }
    return ready
  }

  /// The second half.
  func insert(_ pairs: [Pair], _ keys: [Int?], _ ready: [Bool], _ due: [Int]) {
    for index in pairs.indices {
      let seq = tables.nextSeq
      tables.nextSeq += 1
      guard tables.deliveries[pairs[index]] == nil else { continue }
      tables.deliveries[pairs[index]] = Delivery(
        pair: pairs[index],
        seq: seq,
        key: keys[index],
        ready: ready[index],
        due: due[index],
        created: clock
      )
      touched.append(pairs[index])
    }
  }
}
