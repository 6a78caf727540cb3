import OutboxStore
import Postgres

/// The calls of a dispatcher's life: from its registration to its end, or to what others do about it.
extension Pairing {
  func register() throws -> String {
    let real = try store.register(name: "a", host: "b", pid: 1, version: "c", lease: .seconds(3600))
    let id = try model.transaction(waitsForDisk: true) { transaction throws(PostgresError) in
      try model.register(lease: 3_600_000_000, transaction)
    }
    try agree("register", Int(real), id)
    dispatchers.append(id)
    resyncs[id] = 0
    return "register"
  }

  func resync(_ dispatcher: Int) throws -> String {
    let kept = (held[dispatcher] ?? []).filter { _ in !chance.oneIn(3) }
    let saysHow = !chance.oneIn(3)
    var told = ModelDatabase.Kept(isAnyHow: !saysHow)
    for one in kept { told.batches[one.pair, default: []].append(one.batch.map { batches[$0]! }) }
    var number: Int?
    if !chance.oneIn(3) { number = (resyncs[dispatcher] ?? 0) + (chance.oneIn(6) ? -1 : 1) }
    let real = outcome { () throws(PostgresError) in
      try store.resync(
        dispatcher: Int64(dispatcher),
        held: kept.map { DeliveryKey(event: uuids[$0.pair.event]!, endpoint: Int64($0.pair.endpoint)) },
        batches: saysHow ? kept.map(\.batch) : nil,
        number: number
      )
    }
    let expected = outcome { () throws(PostgresError) in
      try model.transaction(waitsForDisk: false) { transaction throws(PostgresError) in
        try model.resync(dispatcher: dispatcher, kept: told, number: number, transaction)
      }
    }
    let what = "resync(\(dispatcher), \(kept.map(\.pair)), \(number ?? -1))"
    try agree(what, real.map { Int($0) }, expected)
    if case .success = expected {
      held[dispatcher] = kept
      resyncs[dispatcher] = model.tables.witness[dispatcher] ?? 0
    }
    return what
  }

  func expireOrRenew(_ dispatcher: Int) throws -> String {
    if chance.oneIn(2) {
      try connection.execute(
        "UPDATE outbox.dispatcher SET expires_at = now() - interval '1 s' WHERE id = \(dispatcher)"
      )
      if let index = model.tables.leases.firstIndex(where: { $0.id == dispatcher }) {
        model.tables.leases[index].expires = 0
      }
      return "expire \(dispatcher)"
    }
    let real = try store.heartbeat(dispatcher: Int64(dispatcher), lease: .seconds(3600))
    let expected = try model.transaction(waitsForDisk: true) { transaction throws(PostgresError) in
      try model.heartbeat(dispatcher: dispatcher, lease: 3_600_000_000, transaction)
    }
    try agree("heartbeat", real, expected)
    return "heartbeat \(dispatcher)"
  }

  func recover(_ dispatcher: Int) throws -> String {
    let caller = chance.oneIn(3) ? nil : dispatcher
    let real = outcome { () throws(PostgresError) in try store.recover(caller: caller.map { Int64($0) }, settle: .zero)
    }
    let expected = outcome { () throws(PostgresError) in
      try model.transaction(waitsForDisk: true) { transaction throws(PostgresError) in
        try model.recover(caller: caller, settle: -1000, transaction)
      }
    }
    try agree(
      "recover",
      real.map { $0.map { "\($0.dispatcher) \($0.deliveries)" } },
      expected.map { $0.map { "\($0.id) \($0.deliveries)" } }
    )
    return "recover(\(caller ?? -1))"
  }

  func release(_ dispatcher: Int) throws -> String {
    let real = try store.release(dispatcher: Int64(dispatcher))
    let expected = try model.transaction(waitsForDisk: true) { transaction throws(PostgresError) in
      try model.release(dispatcher: dispatcher, transaction)
    }
    try agree("release", Int(real), expected)
    return "release(\(dispatcher))"
  }
}
