// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

interface Sendable {
    function transfer(address to, uint256 value) external returns (bool);
}

/// Pays many in one transaction out of its own tokens, as exchanges do: one transaction with many
/// Transfer logs, of which few are anybody's business. For tokens whose `transfer` answers true.
contract MultiSend {
    function send(Sendable token, address[] calldata recipients, uint256[] calldata values) external {
        require(recipients.length == values.length, "lengths differ");
        for (uint256 i = 0; i < recipients.length; i++) {
            require(token.transfer(recipients[i], values[i]), "not sent");
        }
    }
}
