import ArgumentParser
import Dispatcher
import Foundation
import HTTPDelivery
import Logging
import Postgres
import ServiceLifecycle

struct DispatchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "dispatch",
    abstract: "Deliver committed events until stopped (SIGTERM or SIGINT).",
    discussion: """
      Run as many as you like, on any hosts; they share the work and take over from each other. Logs go to standard \
      error. On SIGTERM it finishes what is in flight, gives the rest back and exits with 0. The role needs \
      outbox_dispatcher.
      """
  )

  @OptionGroup var database: DatabaseOptions
  @OptionGroup var egress: EgressOptions
  @OptionGroup var key: SecretKeyOptions
  @Option(help: "Shown in outbox.dispatcher. Default: host name and process id.") var name: String?
  @Option(help: "Deliveries in flight at most, over all endpoints.") var maxInFlight = 1000
  @Option(help: "Seconds after its last sign of life until others take over.") var lease = 15
  @Option(help: "Seconds a shutdown waits for deliveries in flight.") var grace = 20
  @Option(help: "Seconds between runs of the reconciler, whose findings are logged; 0: never.") var reconcileEvery = 300
  @Option(
    help: ArgumentHelp(
      "Answer GET /health and GET /metrics (Prometheus) on this address: 127.0.0.1:9464.",
      valueName: "host:port"
    )
  )
  var admin: String?
  @Option(
    help: ArgumentHelp("Trust the certificate authorities in this PEM file instead of the system's.", valueName: "file")
  )
  var caFile: String?
  @Option(help: "Seconds that an endpoint's transform may take for one event.") var transformTimeout = 1.0
  @OptionGroup var proxy: ProxyOptions
  @Flag(help: "Wait for the disk with every cut and record. Without it a crash of PostgreSQL may cause redeliveries.")
  var synchronousCommit = false
  @Option(
    help: "trace, debug, info, notice, warning or error.",
    transform: { text in
      guard let level = Logger.Level(rawValue: text) else { throw ValidationError("There is no such level.") }
      return level
    }
  )
  var logLevel = Logger.Level.info

  func validate() throws {
    guard (1...100_000).contains(maxInFlight) else { throw ValidationError("--max-in-flight must be 1 to 100000.") }
    guard (3...3600).contains(lease) else { throw ValidationError("--lease must be 3 to 3600 seconds.") }
    guard (0.001...60).contains(transformTimeout) else {
      throw ValidationError("--transform-timeout must be 0.001 to 60 seconds.")
    }
    guard (0...3600).contains(grace) else { throw ValidationError("--grace must be 0 to 3600 seconds.") }
    guard reconcileEvery >= 0 else { throw ValidationError("--reconcile-every must not be negative.") }
    if let caFile, !FileManager.default.isReadableFile(atPath: caFile) {
      throw ValidationError("--ca-file \(caFile): there is no such readable file.")
    }
    if let caFile,
      (try? String(contentsOfFile: caFile, encoding: .utf8))?.contains("-----BEGIN CERTIFICATE-----") != true
    {
      throw ValidationError("--ca-file \(caFile): this is not a PEM file of certificates.")
    }
    if let admin, Self.address(admin) == nil {
      throw ValidationError("--admin \(admin) is not an IPv4 address and a port: 127.0.0.1:9464")
    }
    _ = try egress.policy()
    _ = try proxy.proxy()
  }

  private static func address(_ text: String) -> (host: String, port: UInt16)? {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2, !parts[0].isEmpty, let port = UInt16(parts[1]) else { return nil }
    return (parts[0] == "localhost" ? "127.0.0.1" : String(parts[0]), port)
  }

  func run() async throws {
    var logger = Logger(label: "martlet") { StreamLogHandler.standardError(label: $0) }
    logger.logLevel = logLevel
    var http = HTTPEngineConfiguration(egress: try egress.policy(), userAgent: "Martlet/\(martletVersion)")
    http.proxy = try proxy.proxy()
    http.caFile = caFile
    http.maxConnections = maxInFlight
    // Endpoints on one host must not wait for each other: the endpoint's own limit is the one that counts.
    http.maxConnectionsPerHost = maxInFlight
    let host = ProcessInfo.processInfo
    var configuration = DispatcherConfiguration(
      database: database.configuration(applicationName: "martlet"),
      name: name ?? "\(host.hostName):\(host.processIdentifier)",
      http: http
    )
    configuration.maxInFlight = maxInFlight
    configuration.capacity = 2 * maxInFlight
    configuration.lease = .seconds(lease)
    configuration.gracePeriod = .seconds(grace)
    configuration.synchronousCommit = synchronousCommit
    configuration.transformTimeout = .milliseconds(Int64(transformTimeout * 1000))
    configuration.keyring = try key.keyring()
    logger.notice(
      "martlet \(martletVersion) dispatches",
      metadata: [
        "name": "\(configuration.name)", "max_in_flight": "\(maxInFlight)", "allow_http": "\(egress.allowHttp)",
        "allow_networks": "\(egress.allowNetwork.isEmpty ? "public only" : egress.allowNetwork.joined(separator: " "))",
        "deny_networks": "\(egress.denyNetwork.isEmpty ? "none" : egress.denyNetwork.joined(separator: " "))",
        "allow_hosts": "\(egress.allowHost.isEmpty ? "all" : egress.allowHost.joined(separator: " "))",
        "proxy": "\(http.proxy.map(\.description) ?? "none")",
        "deny_hosts": "\(egress.denyHost.isEmpty ? "none" : egress.denyHost.joined(separator: " "))",
      ]
    )
    let dispatcher = Dispatcher(configuration, logger: logger)
    var services: [any Service] = [dispatcher]
    if let admin = admin.flatMap(Self.address) {
      services.append(AdminServer(host: admin.host, port: admin.port) { dispatcher.status })
    }
    if reconcileEvery > 0 {
      services.append(
        ReconcilerService(database: configuration.database, every: .seconds(reconcileEvery), logger: logger)
      )
    }
    do {
      try await ServiceGroup(
        configuration: .init(
          services: services.map { .init(service: $0) },
          gracefulShutdownSignals: [.sigterm, .sigint],
          logger: logger
        )
      ).run()
    } catch let error as PostgresError {
      throw CommandFailure(error)
    }
  }
}
