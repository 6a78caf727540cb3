import Dispatcher
import Foundation
import HTTPDelivery
import Logging
import Postgres
import ServiceLifecycle

/// A dispatcher in this process, until it is stopped.
package final class RunningDispatcher: Sendable {
  package let dispatcher: Dispatcher
  private let group: ServiceGroup
  private let task: Task<Void, any Error>

  package init(
    _ database: TestDatabase,
    policy: EgressPolicy? = nil,
    capacity: Int = 2000,
    maxInFlight: Int = 1000,
    gracePeriod: Duration = .seconds(20),
    logger: Logger? = nil,
    configure: (inout DispatcherConfiguration) -> Void = { _ in }
  ) throws {
    let logger = logger ?? testLogger
    let policy =
      try policy ?? EgressPolicy(allowHTTP: true, allowedNetworks: [try CIDR(parsing: "127.0.0.0/8")])
    var configuration = DispatcherConfiguration(
      database: ConnectionConfiguration(connectionString: database.connectionString),
      name: "test",
      http: HTTPEngineConfiguration(egress: policy)
    )
    configuration.lease = .seconds(3)
    configuration.capacity = capacity
    configuration.maxInFlight = maxInFlight
    configuration.gracePeriod = gracePeriod
    configure(&configuration)
    let dispatcher = Dispatcher(
      configuration,
      logger: logger
    )
    let group = ServiceGroup(
      services: [dispatcher],
      logger: logger
    )
    self.dispatcher = dispatcher
    self.group = group
    task = Task { try await group.run() }
  }

  /// Graceful shutdown; throws what the dispatcher threw.
  package func stop() async throws {
    await group.triggerGracefulShutdown()
    try await task.value
  }
}

/// Runs a dispatcher for as long as `body` runs.
package func withDispatcher<Value>(
  _ database: TestDatabase,
  policy: EgressPolicy? = nil,
  capacity: Int = 2000,
  maxInFlight: Int = 1000,
  gracePeriod: Duration = .seconds(20),
  logger: Logger? = nil,
  configure: (inout DispatcherConfiguration) -> Void = { _ in },
  _ body: (Dispatcher) async throws -> Value
) async throws -> Value {
  let running = try RunningDispatcher(
    database,
    policy: policy,
    capacity: capacity,
    maxInFlight: maxInFlight,
    gracePeriod: gracePeriod,
    logger: logger,
    configure: configure
  )
  do {
    let value = try await body(running.dispatcher)
    try await running.stop()
    return value
  } catch {
    try? await running.stop()
    throw error
  }
}

/// Quiet, unless MARTLET_TEST_LOG is set.
private var testLogger: Logger {
  let isLoud = ProcessInfo.processInfo.environment["MARTLET_TEST_LOG"] != nil
  return Logger(label: "test") {
    isLoud ? StreamLogHandler.standardError(label: $0) as any LogHandler : SwiftLogNoOpLogHandler()
  }
}
