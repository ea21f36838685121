// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// A stand-in for the sanctions oracle that Chainalysis keeps on several chains: its owner adds and
/// removes addresses, everybody asks.
contract SanctionsOracle {
    address public immutable owner;
    mapping(address => bool) private sanctioned;

    event SanctionedAddressesAdded(address[] accounts);
    event SanctionedAddressesRemoved(address[] accounts);

    constructor() {
        owner = msg.sender;
    }

    modifier onlyOwner() {
        require(msg.sender == owner, "only the owner");
        _;
    }

    function addToSanctionsList(address[] calldata accounts) external onlyOwner {
        set(accounts, true);
        emit SanctionedAddressesAdded(accounts);
    }

    function removeFromSanctionsList(address[] calldata accounts) external onlyOwner {
        set(accounts, false);
        emit SanctionedAddressesRemoved(accounts);
    }

    function isSanctioned(address account) external view returns (bool) {
        return sanctioned[account];
    }

    function set(address[] calldata accounts, bool value) private {
        for (uint256 place = 0; place < accounts.length; place++) {
            sanctioned[accounts[place]] = value;
        }
    }
}
