import HTTPDelivery
import Logging
import OutboxStore
import Postgres

/// Keeps the lease, from a connection of its own, so that neither slow HTTP nor a slow statement costs it; takes over from
/// dispatchers that lost theirs; and does what must be done now and then.
struct LeaseLoop {
  let desk: Desk
  let engine: HTTPEngine
  let stop: StopSignal
  let configuration: DispatcherConfiguration
  let logger: Logger

  func run(_ database: DatabaseLoop) throws(PostgresError) {
    var nextMaintenance = desk.now
    while !stop.isSet {
      try keepLease(database)
      if desk.dispatcher != nil {
        try recover(database)
        if desk.now >= nextMaintenance {
          try maintain(database)
          nextMaintenance = desk.now + configuration.maintainEvery
        }
      }
      desk.leaseBell.wait(upTo: configuration.lease / 5)
    }
  }

  private func keepLease(_ database: DatabaseLoop) throws(PostgresError) {
    // What we may rely on counts from before the call: the server's count begins later.
    let began = desk.now
    if let dispatcher = desk.dispatcher {
      let step = try database.step { store throws(PostgresError) in
        try store.heartbeat(dispatcher: dispatcher, lease: configuration.lease)
      }
      switch step {
      case .done(true):
        if desk.granted(dispatcher, until: began + configuration.lease) { engine.submit(desk.resumeDepartures()) }
        return
      case .done(false):
        logger.warning("the lease is gone: another dispatcher took over", metadata: ["dispatcher": "\(dispatcher)"])
        desk.lost(dispatcher)
      case .unleased, .doubtful, .failed: return
      }
    }
    let step = try database.step { store throws(PostgresError) in
      try store.register(
        name: configuration.name,
        host: Host.name,
        pid: Host.pid,
        version: martletVersion,
        lease: configuration.lease
      )
    }
    if case .done(let dispatcher) = step {
      logger.notice("lease granted", metadata: ["dispatcher": "\(dispatcher)", "name": "\(configuration.name)"])
      _ = desk.granted(dispatcher, until: began + configuration.lease)
    }
  }

  private func recover(_ database: DatabaseLoop) throws(PostgresError) {
    guard case .done(let recovered) = try database.step({ store throws(PostgresError) in try store.recover() }) else {
      return
    }
    for lost in recovered {
      logger.warning(
        "took over from a dispatcher whose lease ran out",
        metadata: ["dispatcher": "\(lost.dispatcher)", "name": "\(lost.name)", "deliveries": "\(lost.deliveries)"]
      )
      desk.withState { $0.counters.recovered += 1 }
    }
  }

  private func maintain(_ database: DatabaseLoop) throws(PostgresError) {
    let step = try database.step { store throws(PostgresError) in
      try store.stampSubscriptions()
      return try store.maintain()
    }
    guard case .done(let actions) = step else { return }
    for action in actions { logger.info("maintenance", metadata: ["action": "\(action)"]) }
  }
}
