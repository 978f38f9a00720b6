package command

var stringRows = []Row{}
