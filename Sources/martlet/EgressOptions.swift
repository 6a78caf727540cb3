import ArgumentParser
import HTTPDelivery

/// Where requests may go. Without these: https and public addresses only.
struct EgressOptions: ParsableArguments {
  @Flag(help: "Allow endpoints with http:// URLs.") var allowHttp = false
  @Option(
    help: ArgumentHelp(
      "Allow addresses of this network although it is not public; repeat for several.",
      valueName: "cidr"
    )
  )
  var allowNetwork: [String] = []

  func policy() throws -> EgressPolicy {
    var networks: [CIDR] = []
    for text in allowNetwork {
      do {
        networks.append(try CIDR(parsing: text))
      } catch {
        throw ValidationError("--allow-network \(text): \(error)")
      }
    }
    return EgressPolicy(allowHTTP: allowHttp, allowedNetworks: networks)
  }
}
