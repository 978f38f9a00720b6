package command

var connectionRows = []Row{}
