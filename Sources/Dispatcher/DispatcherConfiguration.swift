import Foundation
import HTTPDelivery
import Postgres
import SecretSealing

/// The version of this build, as in `outbox.dispatcher.version` and the `User-Agent`.
package let martletVersion = "0.1.0"

/// How a dispatcher runs. Everything has a sensible default but the database.
package struct DispatcherConfiguration: Sendable {
  package var database: ConnectionConfiguration
  /// Shown in `outbox.dispatcher`; need not be unique.
  package var name: String
  package var http: HTTPEngineConfiguration
  /// How long after its last sign of life a dispatcher is taken over.
  package var lease: Duration = .seconds(15)
  /// Deliveries in flight at most, over all endpoints.
  package var maxInFlight = 1000
  /// Deliveries in memory at most, in flight and queued.
  package var capacity = 2000
  /// How long a shutdown waits for what is in flight.
  package var gracePeriod: Duration = .seconds(20)
  /// How long an endpoint's transform may take for one event.
  package var transformTimeout: Duration = .seconds(1)
  package var maintainEvery: Duration = .seconds(60)
  /// What secrets and credentials are sealed with in the database; without a key they stay as they are.
  package var keyring = Keyring()
  /// Whether outcomes and cuts wait for the disk. They need not: what a crash of PostgreSQL takes back is delivered again.
  package var synchronousCommit = false

  package init(database: ConnectionConfiguration, name: String, http: HTTPEngineConfiguration) {
    self.database = database
    self.database.setUp.append(ConnectionConfiguration.pinSearchPath)
    self.name = name
    self.http = http
  }
}

enum Host {
  static var name: String { ProcessInfo.processInfo.hostName }
  static var pid: Int32 { ProcessInfo.processInfo.processIdentifier }
}
